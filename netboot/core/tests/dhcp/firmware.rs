//! What each firmware is told to load, alone and beside another server.

use std::net::{Ipv4Addr, SocketAddrV4};

use netboot_core::boot::{Answer, Asked, File, Protocol, Transfer, What};
use netboot_core::dhcp::{Destination, Firmware, Form, Reply};

use crate::support::*;

fn text(reply: &Reply, code: u8) -> Option<String> {
    reply
        .option(code)
        .map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn each_firmware_is_told_what_it_can_load() {
    let url = "http://10.77.0.1/ipxe/52-54-00-77-00-01";
    let ask = || packet(DISCOVER, BIOS1);
    let cases = [
        ("bios", ask().pxe(0), Firmware::Bios, Some("undionly.kpxe")),
        (
            "uefi x64",
            ask().pxe(7),
            Firmware::UefiPxe,
            Some("ipxe.efi"),
        ),
        (
            "uefi x64, as the RFC misprinted it",
            ask().pxe(9),
            Firmware::UefiPxe,
            Some("ipxe.efi"),
        ),
        (
            "uefi arm64",
            ask().pxe(11),
            Firmware::UefiPxe,
            Some("ipxe-arm64.efi"),
        ),
        ("uefi ia32", ask().pxe(6), Firmware::UefiPxe, None),
        (
            "class alone",
            ask().option(60, "PXEClient:Arch:00007:UNDI:003016"),
            Firmware::UefiPxe,
            Some("ipxe.efi"),
        ),
        (
            "http x64",
            ask().http(16),
            Firmware::UefiHttp,
            Some("http://10.77.0.1/boot/ipxe.efi"),
        ),
        (
            "ipxe, raw class",
            ask().pxe(7).option(77, "iPXE"),
            Firmware::Ipxe,
            Some(url),
        ),
        (
            "ipxe, class by RFC 3004",
            ask().pxe(0).option(77, "\x04iPXE"),
            Firmware::Ipxe,
            Some(url),
        ),
        (
            "ipxe, by its options",
            ask().pxe(0).option(175, [177, 1, 0]),
            Firmware::Ipxe,
            Some(url),
        ),
        (
            "an operating system",
            ask().option(60, "MSFT 5.0"),
            Firmware::Os,
            None,
        ),
        ("a BMC", ask().option(60, "iDRAC"), Firmware::Os, None),
    ];
    for (name, packet, firmware, file) in cases {
        let offer = Appliance::new().reply(&packet);
        assert_eq!(offer.about.firmware, firmware, "{name}");
        assert_eq!(offer.file.as_deref(), file, "{name}");
        let ended = file.map(|file| format!("{file}\0"));
        assert_eq!(text(&offer, 67), ended, "{name}");
        assert_eq!(offer.yiaddr, RESERVED, "{name}");
    }
}

#[test]
fn ipxe_is_told_not_to_wait_only_where_no_other_server_is() {
    let ours = Appliance::new().reply(&packet(DISCOVER, BIOS1).pxe(7).option(77, "iPXE"));
    assert_eq!(ours.option(175), Some(vec![176, 1, 1]));
    let beside = packet(DISCOVER, BESIDE1)
        .on(BESIDE)
        .pxe(7)
        .option(77, "iPXE");
    let beside = Appliance::new().reply(&beside);
    assert_eq!(beside.option(175), None);
    assert_eq!(text(&beside, 60).as_deref(), Some("PXEClient"));
    assert_eq!(
        beside.file.as_deref(),
        Some("http://10.78.0.1/ipxe/52-54-00-77-00-03")
    );
}

#[test]
fn http_boot_is_answered_in_its_own_class() {
    let offer = Appliance::new().reply(&packet(DISCOVER, BIOS1).http(16));
    assert_eq!(text(&offer, 60).as_deref(), Some("HTTPClient"));
    assert_eq!(offer.option(66), None);
}

fn what(firmware: Firmware) -> What {
    What::Dhcp {
        asked: Asked::Discover,
        answer: Answer::Offer,
        firmware,
        form: Some(Form::Plain),
        next: None,
    }
}

#[test]
fn an_ignored_offer_changes_the_form() {
    let mut appliance = Appliance::new();
    let host = "bios1".into();
    let discover = packet(DISCOVER, BIOS1).pxe(0);
    let forms = [
        (0, Form::Plain, None, None),
        (3, Form::Direct, Some("PXEClient"), Some(vec![6, 1, 8, 255])),
        (6, Form::Plain, None, None),
    ];
    for (ignored, form, class, vendor) in forms {
        while appliance.tries.of("bios1").ignored < ignored {
            appliance.tries.note(&host, &what(Firmware::Bios));
        }
        let offer = appliance.reply(&discover);
        assert_eq!(offer.about.form, Some(form), "{ignored}");
        assert!(
            offer.about.next.is_some_and(|next| next != form),
            "{ignored}"
        );
        assert_eq!(text(&offer, 60).as_deref(), class, "{ignored}");
        assert_eq!(offer.option(43), vendor, "{ignored}");
        assert_eq!(
            (offer.siaddr, text(&offer, 66).as_deref()),
            (RACK, Some("10.77.0.1\0"))
        );
    }
    let loader = What::Fetch {
        file: File::Loader,
        name: "undionly.kpxe".into(),
        over: Protocol::Tftp,
        transfer: Transfer::Started,
    };
    appliance.tries.note(&host, &loader);
    assert_eq!(appliance.reply(&discover).about.form, Some(Form::Plain));
}

#[test]
fn a_loader_that_does_not_run_gives_way_to_the_next() {
    let mut appliance = Appliance::new();
    let host = "bios1".into();
    let fetched = What::Fetch {
        file: File::Loader,
        name: "ipxe.efi".into(),
        over: Protocol::Tftp,
        transfer: Transfer::Done {
            bytes: 1,
            elapsed_ms: 1,
        },
    };
    let discover = packet(DISCOVER, BIOS1).pxe(7);
    let mut named = Vec::new();
    for _ in 0..5 {
        let offer = appliance.reply(&discover);
        appliance.tries.note(&host, &what(Firmware::UefiPxe));
        appliance.tries.note(&host, &fetched);
        named.push(offer.file.unwrap().into_string());
    }
    let expected = [
        "ipxe.efi",
        "ipxe.efi",
        "snponly.efi",
        "snponly.efi",
        "ipxe.efi",
    ];
    assert_eq!(named, expected);
    appliance.tries.note(&host, &what(Firmware::Ipxe));
    assert_eq!(
        appliance.reply(&discover).file.as_deref(),
        Some("ipxe.efi"),
        "it ran"
    );
}

#[test]
fn beside_another_server_only_boot_options_are_given() {
    let ask = |kind| packet(kind, BESIDE1).on(BESIDE);
    let mut appliance = Appliance::new();
    let offer = appliance.reply(&ask(DISCOVER).pxe(7));
    assert_eq!(
        (offer.yiaddr, offer.option(51)),
        (Ipv4Addr::UNSPECIFIED, None)
    );
    assert_eq!(
        offer.option(54),
        Some(BESIDE.octets().to_vec()),
        "EDK2 drops offers without"
    );
    assert_eq!(text(&offer, 60).as_deref(), Some("PXEClient"));
    assert_eq!(
        (offer.about.form, offer.option(43)),
        (Some(Form::Port4011), None)
    );
    assert_eq!(offer.destination, Destination::Broadcast);
    let bios = appliance.reply(&ask(DISCOVER).pxe(0));
    assert_eq!(bios.option(43), Some(vec![6, 1, 8, 255]));
    let stranger = packet(DISCOVER, STRANGER).on(BESIDE).pxe(7);
    let cases = [
        ("an operating system", ask(DISCOVER), "not-booting"),
        ("a stranger", stranger, "unknown-host"),
        (
            "the other server's client",
            ask(REQUEST).pxe(7).address(54, Ipv4Addr::new(10, 78, 0, 2)),
            "for-the-dhcp-server",
        ),
        ("a release", ask(RELEASE).pxe(7), "for-the-dhcp-server"),
        ("no loader", ask(DISCOVER).pxe(6), "no-loader"),
    ];
    for (name, packet, expected) in cases {
        assert_eq!(silence(&appliance.ask(&packet)), expected, "{name}");
    }
}

#[test]
fn port_4011_is_answered_to_its_sender() {
    let source = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 55), 4011);
    let asked = packet(REQUEST, BESIDE1)
        .on(BESIDE)
        .ciaddr(*source.ip())
        .at_4011(source)
        .pxe(7);
    let ack = Appliance::new().reply(&asked);
    assert_eq!(ack.destination, Destination::Peer(source));
    assert_eq!(ack.file.as_deref(), Some("ipxe.efi"));
    assert_eq!(
        (ack.yiaddr, ack.option(97)),
        (Ipv4Addr::UNSPECIFIED, Some(vec![0; 17]))
    );
    assert_eq!(
        ack.option(43),
        None,
        "as pixiecore: all firmware takes it so"
    );
}
