//! Users and groups of an image: read by name, and added as `useradd` would add them.
//!
//! It refuses to change a user who is there, and gives no one a password.

use std::io;

use image_tree::Content;

use super::draft::Draft;
use crate::definition::{Group, NO_HOME, User, UserKind};

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
const SHADOW: &str = "etc/shadow";
const GSHADOW: &str = "etc/gshadow";
/// Seconds of a day, in which `etc/shadow` counts.
const DAY: i64 = 86_400;

/// Why a user could not be added or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of users could not be read or written.
    #[error("failed to change `/{path}` of the image")]
    File {
        /// Which.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The image has no users at all.
    #[error(
        "user `{name}` cannot be added: the image has no `/{path}`; install the package `base-passwd`"
    )]
    Absent {
        /// The user.
        name: String,
        /// The file that is not there.
        path: &'static str,
    },
    /// The name or number is that of another user or group.
    #[error("`{name}` cannot be added: its name or number {number} is taken in `/{path}`")]
    Taken {
        /// The user or group.
        name: String,
        /// Its number.
        number: u32,
        /// Where it is taken.
        path: &'static str,
    },
    /// There is no such user or group.
    #[error("`{name}` is not in `/{path}` of the image")]
    Unknown {
        /// The name.
        name: String,
        /// Where it was looked for.
        path: &'static str,
    },
    /// The home directory could not be made.
    #[error("failed to make the home directory `{path}`")]
    Home {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Finds the number of a user.
pub(super) fn user_number(root: &Draft<'_>, name: &str) -> Result<u32, Error> {
    number(root, name, PASSWD)
}

/// Finds the number of a group.
pub(super) fn group_number(root: &Draft<'_>, name: &str) -> Result<u32, Error> {
    number(root, name, GROUP)
}

fn number(root: &Draft<'_>, name: &str, path: &'static str) -> Result<u32, Error> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    // A tree without packages has no users; root is root everywhere.
    if name == "root" {
        return Ok(0);
    }
    let text = read(root, path)?;
    let number = find(&text, name).and_then(|fields| fields.get(2)?.parse().ok());
    number.ok_or_else(|| Error::Unknown {
        name: name.to_owned(),
        path,
    })
}

/// Adds groups and then users, since a user may belong to any of the groups; members of groups come last.
pub(super) fn add_all(
    root: &mut Draft<'_>,
    users: &[User],
    groups: &[Group],
    source_date: i64,
) -> Result<(), Error> {
    for group in groups {
        check_free(root, GROUP, &group.name, group.gid)?;
        make_shadow(root, GSHADOW)?;
        add_group(root, &group.name, group.gid)?;
    }
    for user in users {
        add(root, user, source_date)?;
    }
    for group in groups {
        for member in &group.members {
            user_number(root, member)?;
            join_group(root, &group.name, member)?;
        }
    }
    Ok(())
}

/// Adds a user without a password, and a group of its own name and number unless it has another.
fn add(root: &mut Draft<'_>, user: &User, source_date: i64) -> Result<(), Error> {
    let User {
        name,
        uid,
        kind: _,
        group,
        comment,
        home,
        shell,
        groups,
        ssh_keys: _,
    } = user;
    check_free(root, PASSWD, name, *uid)?;
    for path in [SHADOW, GSHADOW] {
        make_shadow(root, path)?;
    }
    let gid = if let Some(group) = group {
        group_number(root, group)?
    } else {
        check_free(root, GROUP, name, *uid)?;
        add_group(root, name, *uid)?;
        *uid
    };
    let day = source_date.div_euclid(DAY);
    let line = format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}");
    append(root, PASSWD, &line)?;
    append(root, SHADOW, &format!("{name}:!:{day}:0:99999:7:::"))?;
    for group in groups {
        group_number(root, group)?;
        join_group(root, group, name)?;
    }
    make_home(root, user, gid).map_err(|source| Error::Home {
        path: home.clone(),
        source,
    })
}

/// Whether a name and a number are still free in a file.
fn check_free(root: &Draft<'_>, path: &'static str, name: &str, number: u32) -> Result<(), Error> {
    let text = root.read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Absent {
            name: name.to_owned(),
            path,
        },
        _ => Error::File { path, source },
    })?;
    let same = |line: &str| {
        let mut fields = line.split(':');
        let taken = fields.clone().nth(2).and_then(|taken| taken.parse().ok());
        fields.next() == Some(name) || taken == Some(number)
    };
    if text.lines().any(same) {
        return Err(Error::Taken {
            name: name.to_owned(),
            number,
            path,
        });
    }
    Ok(())
}

fn add_group(root: &mut Draft<'_>, name: &str, gid: u32) -> Result<(), Error> {
    append(root, GROUP, &format!("{name}:x:{gid}:"))?;
    append(root, GSHADOW, &format!("{name}:!::"))
}

fn join_group(root: &mut Draft<'_>, group: &str, name: &str) -> Result<(), Error> {
    join(root, GROUP, group, name)?;
    join(root, GSHADOW, group, name)
}

/// Makes a file of passwords where an image without the package `passwd` has none, as that package
/// would: for root, and the group `shadow` where there is one.
fn make_shadow(root: &mut Draft<'_>, path: &'static str) -> Result<(), Error> {
    let failed = |source| Error::File { path, source };
    if root.get(path).is_some() {
        return Ok(());
    }
    let group = match group_number(root, "shadow") {
        Err(Error::Unknown { .. }) => 0,
        found => found?,
    };
    let written = root.write(path, Content::of(&b""[..]), 0o640, (0, group));
    written.map_err(failed)
}

/// Makes the home directory, where the user has one, and puts the keys into it that may log in.
fn make_home(root: &mut Draft<'_>, user: &User, gid: u32) -> io::Result<()> {
    let wants = user.kind == UserKind::Regular || !user.ssh_keys.is_empty();
    if user.home == NO_HOME || !wants {
        return Ok(());
    }
    let path = user.home.trim_start_matches('/');
    let owner = (user.uid, gid);
    if root.get(path).is_none() {
        root.own_directory(path, 0o700, owner)?;
    }
    if user.ssh_keys.is_empty() {
        return Ok(());
    }
    root.own_directory(&format!("{path}/.ssh"), 0o700, owner)?;
    let lines: String = user.ssh_keys.iter().flat_map(|key| [key, "\n"]).collect();
    let keys = format!("{path}/.ssh/authorized_keys");
    root.write(&keys, Content::of(lines.as_bytes()), 0o600, owner)
}

/// Adds a member to a group, the last field of its line.
fn join(root: &mut Draft<'_>, path: &'static str, group: &str, name: &str) -> Result<(), Error> {
    let text = read(root, path)?;
    let joined = text.lines().map(|line| {
        let Some((head, members)) = line.rsplit_once(':') else {
            return line.to_owned();
        };
        let ours = head.split(':').next() == Some(group);
        let member = members.split(',').any(|member| member == name);
        match (ours && !member, members.is_empty()) {
            (false, _) => line.to_owned(),
            (true, true) => format!("{head}:{name}"),
            (true, false) => format!("{head}:{members},{name}"),
        }
    });
    let joined: String = joined.map(|line| line + "\n").collect();
    rewrite(root, path, &joined)
}

fn append(root: &mut Draft<'_>, path: &'static str, line: &str) -> Result<(), Error> {
    let mut text = read(root, path)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    rewrite(root, path, &text)
}

fn find<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.into_iter().find(|fields| fields[0] == name)
}

fn read(root: &Draft<'_>, path: &'static str) -> Result<String, Error> {
    root.read(path)
        .map_err(|source| Error::File { path, source })
}

fn rewrite(root: &mut Draft<'_>, path: &'static str, text: &str) -> Result<(), Error> {
    let written = root.rewrite(path, text);
    written.map_err(|source| Error::File { path, source })
}

#[cfg(test)]
mod tests {
    use image_tree::{Entry, Tree};

    use super::*;

    /// Makes a tree with files in `etc`.
    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        tree.insert(b"etc", Entry::directory()).unwrap();
        for (name, text) in files {
            let path = format!("etc/{name}");
            let entry = Entry::file(text.as_bytes(), 0o644);
            tree.insert(path.as_bytes(), entry).unwrap();
        }
        tree
    }

    #[test]
    fn a_user_is_added_once_and_belongs_to_its_groups() {
        let mut tree = tree(&[
            ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("shadow", "root:*:19000:0:99999:7:::\n"),
            ("group", "root:x:0:\nsudo:x:27:\nadm:x:4:syslog\n"),
            ("gshadow", "root:*::\nsudo:*::\nadm:*::syslog"),
        ]);
        let mut root = Draft::new(&mut tree);
        let key = "ssh-ed25519 AAAA laptop".to_owned();
        let user = User {
            name: "deploy".to_owned(),
            uid: 1000,
            kind: UserKind::Regular,
            group: None,
            comment: "Who deploys".to_owned(),
            home: "/home/deploy".to_owned(),
            shell: "/bin/bash".to_owned(),
            groups: vec!["sudo".to_owned(), "adm".to_owned()],
            ssh_keys: vec![key.clone()],
        };
        add(&mut root, &user, 1_700_000_000).unwrap();
        let text = |name: &str| root.read(&format!("etc/{name}")).unwrap();
        assert!(
            text("passwd").ends_with("deploy:x:1000:1000:Who deploys:/home/deploy:/bin/bash\n")
        );
        assert!(text("shadow").ends_with("deploy:!:19675:0:99999:7:::\n"));
        let group = "root:x:0:\nsudo:x:27:deploy\nadm:x:4:syslog,deploy\ndeploy:x:1000:\n";
        assert_eq!(text("group"), group);
        assert!(text("gshadow").ends_with("adm:*::syslog,deploy\ndeploy:!::\n"));
        let keys = "home/deploy/.ssh/authorized_keys";
        assert_eq!(root.read(keys).unwrap(), key + "\n");
        for (path, mode) in [
            ("home/deploy", 0o700),
            ("home/deploy/.ssh", 0o700),
            (keys, 0o600),
        ] {
            let found = root.get(path).unwrap();
            assert_eq!(
                (found.mode, found.uid, found.gid),
                (mode, 1000, 1000),
                "{path}"
            );
        }
        let taken = add(&mut root, &user, 0).unwrap_err();
        assert!(matches!(taken, Error::Taken { .. }), "{taken}");
        assert_eq!(user_number(&root, "deploy").unwrap(), 1000);
        assert_eq!(group_number(&root, "42").unwrap(), 42);
        assert!(matches!(
            user_number(&root, "ghost"),
            Err(Error::Unknown { .. })
        ));
    }

    #[test]
    fn users_belong_to_groups_that_the_definition_makes() {
        let mut tree = tree(&[
            ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("group", "root:x:0:\n"),
        ]);
        let mut root = Draft::new(&mut tree);
        let group = |name: &str, gid, members: &[&str]| Group {
            name: name.to_owned(),
            gid,
            members: members.iter().map(|one| (*one).to_owned()).collect(),
        };
        let user = User {
            name: "web".to_owned(),
            uid: 900,
            kind: UserKind::System,
            group: Some("sites".to_owned()),
            comment: String::new(),
            home: "/srv/web".to_owned(),
            shell: "/usr/sbin/nologin".to_owned(),
            groups: vec!["logs".to_owned()],
            ssh_keys: Vec::new(),
        };
        let groups = [group("sites", 901, &["root"]), group("logs", 902, &[])];
        add_all(&mut root, std::slice::from_ref(&user), &groups, 0).unwrap();
        let text = |name: &str| root.read(&format!("etc/{name}")).unwrap();
        assert!(text("passwd").ends_with("web:x:900:901::/srv/web:/usr/sbin/nologin\n"));
        assert_eq!(
            text("group"),
            "root:x:0:\nsites:x:901:root\nlogs:x:902:web\n"
        );
        assert!(root.get("srv").is_none(), "a service has none");
        let error = add_all(&mut root, &[], &[group("other", 901, &[])], 0).unwrap_err();
        assert!(matches!(error, Error::Taken { number: 901, .. }), "{error}");
        let error = add_all(&mut root, &[], &[group("other", 903, &["ghost"])], 0).unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
    }

    #[test]
    fn files_of_passwords_are_made_and_an_image_without_users_is_told_the_remedy() {
        let mut bare = tree(&[]);
        let user = User {
            name: "deploy".to_owned(),
            uid: 1000,
            kind: UserKind::System,
            group: None,
            comment: String::new(),
            home: "/nonexistent".to_owned(),
            shell: "/bin/sh".to_owned(),
            groups: Vec::new(),
            ssh_keys: Vec::new(),
        };
        let error = add(&mut Draft::new(&mut bare), &user, 0).unwrap_err();
        assert!(error.to_string().contains("base-passwd"), "{error}");
        let mut tree = tree(&[
            ("passwd", "root:*:0:0:root:/root:/bin/sh\n"),
            ("group", "root:*:0:\nshadow:*:42:\n"),
        ]);
        let mut root = Draft::new(&mut tree);
        add(&mut root, &user, 0).unwrap();
        for (name, expected) in [
            ("shadow", "deploy:!:0:0:99999:7:::\n"),
            ("gshadow", "deploy:!::\n"),
        ] {
            let path = format!("etc/{name}");
            assert_eq!(root.read(&path).unwrap(), expected);
            let found = root.get(&path).unwrap();
            assert_eq!((found.mode, found.uid, found.gid), (0o640, 0, 42), "{name}");
        }
    }
}
