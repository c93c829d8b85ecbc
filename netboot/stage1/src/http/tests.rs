//! The client against servers that misbehave, over the loopback.

use std::net::TcpListener;
use std::thread;

use super::*;

/// Answers every connection in order with fixed bytes, once a request has come; then hangs up.
fn server(answers: Vec<Vec<u8>>) -> SocketAddrV4 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _read = stream.read(&mut buffer).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    match address {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
    }
}

fn bearer() -> Token {
    "s3cret".parse().unwrap()
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    let head = |status: &str, lines: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{lines}\r\n{body}",
            body.len()
        )
    };
    let cases = [
        (
            "the range",
            head("206 P", "Content-Range: bytes 2-5/10\r\n", "2345"),
            None,
        ),
        (
            "another range",
            head("206 P", "Content-Range: bytes 3-6/10\r\n", "3456"),
            Some("other bytes"),
        ),
        (
            "another file",
            head("206 P", "Content-Range: bytes 2-5/11\r\n", "2345"),
            Some("other bytes"),
        ),
        (
            "the whole",
            head("200 OK", "", "0123456789"),
            Some("other bytes"),
        ),
        (
            "a refusal",
            head("404 Not Found", "", "no such artifact\nmore"),
            Some("404 no such artifact"),
        ),
        (
            "a refusal that hides",
            head("404 Not Found", "", "a\u{1b}[2Jb"),
            Some("404 a[2Jb"),
        ),
        (
            "no HTTP",
            "hello\r\n\r\n".to_owned(),
            Some("not answered in HTTP"),
        ),
        ("nothing", String::new(), Some("was cut")),
    ];
    for (name, answer, problem) in cases {
        let mut connection = Connection::open(server(vec![answer.into_bytes()])).unwrap();
        let result = connection.get_range("/blob/x", &(2..6), 10);
        let text = result.err().map(|error| error.to_string());
        match problem {
            None => assert_eq!(text, None, "{name}"),
            Some(problem) => assert!(
                text.as_deref().unwrap_or_default().contains(problem),
                "{name}: {text:?}"
            ),
        }
    }
}

#[test]
fn a_cut_body_is_an_error_and_not_an_end() {
    let answer =
        b"HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/4\r\n\r\n01".to_vec();
    let mut connection = Connection::open(server(vec![answer])).unwrap();
    connection.get_range("/blob/x", &(0..4), 4).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(connection.read(&mut buffer).unwrap(), 2);
    assert!(matches!(
        connection.read(&mut buffer),
        Err(Error::Cut { .. })
    ));
    assert!(!connection.is_reusable());
}

#[test]
fn a_refused_report_is_final_and_an_overloaded_appliance_is_not() {
    for (status, last_word) in [
        (401, true),
        (404, true),
        (429, false),
        (500, false),
        (503, false),
    ] {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        let server = server(vec![answer.into_bytes()]);
        let result = Connection::open(server)
            .unwrap()
            .post("/r", &bearer(), b"{}");
        let error = result.unwrap_err();
        assert_eq!(error.is_final(), last_word, "{status}");
        assert!(!error.to_string().contains("s3cret"), "{status}");
    }
}

#[test]
fn a_long_answer_is_not_read() {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n".to_vec();
    let server = server(vec![answer]);
    let result = Connection::open(server).unwrap().get("/h", &bearer());
    assert!(matches!(result, Err(Error::LongBody { .. })));
}
