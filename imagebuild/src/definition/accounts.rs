//! `[[user]]` and `[[group]]` of a definition.
//!
//! It refuses passwords: who logs in does so by key.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::check::{self, Check};
use super::reader::{Located, Table};
use super::{Group, User, UserKind};

/// The first number that is a person's (Debian Policy §9.2.2).
const FIRST_REGULAR: u32 = 1000;
/// The number that stands for nobody, and those above.
const NOBODY: u32 = 65_534;
/// The home directory of who has none.
pub(crate) const NO_HOME: &str = "/nonexistent";
/// Kinds of keys that OpenSSH takes.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

pub(super) fn read_user(table: &mut Table<'_, '_>) -> Option<User> {
    let name = table.string("name");
    let uid = table.number("uid");
    let system = table.truth("system");
    let group = table.string("group");
    let comment = table.string("comment");
    let home = table.string("home");
    let shell = table.string("shell");
    let groups = table.strings("groups");
    let keys = table.strings("ssh-keys");
    let kind = match system {
        Some(Located { value: true, .. }) => UserKind::System,
        _ => UserKind::Regular,
    };
    account_name(table, name.as_ref(), "user");
    match &uid {
        None => table.missing("uid"),
        Some(uid) => check_number(table, uid, kind),
    }
    for path in [&home, &shell].into_iter().flatten() {
        let inner = path.value.strip_prefix('/');
        if !inner.is_some_and(check::is_path) || path.value.contains([':', '\n']) {
            table.note(path.problem(format!("`{}` is no absolute path", path.value)));
        }
    }
    if let Some(comment) = &comment
        && comment.value.contains([':', '\n', '\0'])
    {
        table.note(comment.problem("a comment has one line without `:`".to_owned()));
    }
    for group in group.iter().chain(&groups) {
        account_name(table, Some(group), "group");
    }
    let name = name?.value;
    let home = home.map_or_else(|| default_home(&name, kind), |home| home.value);
    for key in &keys {
        if let Some(wrong) = wrong_key(&key.value) {
            table.note(key.problem(format!("this is no public key of OpenSSH: {wrong}")));
        } else if home == NO_HOME {
            table.note(key.problem("keys need a `home`, which this user has not".to_owned()));
        }
    }
    Some(User {
        uid: uid?.value,
        kind,
        group: group.map(|group| group.value),
        comment: comment.map(|comment| comment.value).unwrap_or_default(),
        shell: shell.map_or_else(|| "/usr/sbin/nologin".to_owned(), |shell| shell.value),
        groups: groups.into_iter().map(|group| group.value).collect(),
        ssh_keys: keys.into_iter().map(|key| key.value).collect(),
        home,
        name,
    })
}

pub(super) fn read_group(table: &mut Table<'_, '_>) -> Option<Group> {
    let name = table.string("name");
    let gid = table.number("gid");
    let members = table.strings("members");
    account_name(table, name.as_ref(), "group");
    if gid.is_none() {
        table.missing("gid");
    }
    for member in &members {
        account_name(table, Some(member), "user");
    }
    Some(Group {
        name: name?.value,
        gid: gid?.value,
        members: members.into_iter().map(|member| member.value).collect(),
    })
}

fn account_name(table: &mut Table<'_, '_>, name: Option<&Located<String>>, what: &str) {
    match name {
        None => table.missing("name"),
        Some(name) if !check::is_account(&name.value) => {
            table.note(name.problem(format!("`{}` is no name of a {what}", name.value)));
        }
        Some(_) => {}
    }
}

fn check_number(table: &mut Table<'_, '_>, uid: &Located<u32>, kind: UserKind) {
    let right = match kind {
        UserKind::System => (1..FIRST_REGULAR).contains(&uid.value),
        UserKind::Regular => (1..NOBODY).contains(&uid.value),
    };
    if !right {
        let last = match kind {
            UserKind::System => FIRST_REGULAR - 1,
            UserKind::Regular => NOBODY - 1,
        };
        let message = format!(
            "`{}` is no number of a {} user: 1 to {last}",
            uid.value,
            kind.word()
        );
        table.note(uid.problem(message));
    }
}

fn default_home(name: &str, kind: UserKind) -> String {
    match kind {
        UserKind::Regular => format!("/home/{name}"),
        UserKind::System => NO_HOME.to_owned(),
    }
}

/// Says what is wrong with a line of `authorized_keys`: type, key, and perhaps a comment; no options.
fn wrong_key(line: &str) -> Option<&'static str> {
    if line.contains(['\n', '\r', '\0']) {
        return Some("it has more than one line");
    }
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    if !KEY_TYPES.contains(&kind) {
        return Some("its first word is no type of key, such as `ssh-ed25519`");
    }
    let Ok(bytes) = STANDARD.decode(words.next().unwrap_or_default()) else {
        return Some("its second word is not base64");
    };
    // RFC 4253 §6.6: the type stands in the key again, after its length.
    let length = u32::try_from(kind.len()).unwrap_or(u32::MAX).to_be_bytes();
    let inner = bytes.strip_prefix(&length);
    if inner.is_none_or(|inner| !inner.starts_with(kind.as_bytes())) {
        return Some("the key is of another type than its first word says");
    }
    None
}

impl Check<'_> {
    pub(super) fn users(&mut self, users: Vec<Located<User>>) -> Vec<User> {
        let mut kept: Vec<User> = Vec::new();
        for user in users {
            let clash = |other: &User| other.name == user.value.name || other.uid == user.value.uid;
            if kept.iter().any(clash) {
                let message = format!("name or number of user `{}` is taken", user.value.name);
                self.problems.push(user.problem(message));
            }
            kept.push(user.value);
        }
        kept
    }

    /// Checks groups against each other and against those that users bring along.
    pub(super) fn groups(&mut self, groups: Vec<Located<Group>>, users: &[User]) -> Vec<Group> {
        let own = users.iter().filter(|user| user.group.is_none());
        let mut names: BTreeSet<String> = own.clone().map(|user| user.name.clone()).collect();
        let mut numbers: BTreeSet<u32> = own.map(|user| user.uid).collect();
        let mut kept = Vec::new();
        for group in groups {
            let Group { name, gid, .. } = &group.value;
            if !names.insert(name.clone()) || !numbers.insert(*gid) {
                let message = format!("name or number of group `{name}` is taken");
                self.problems.push(group.problem(message));
            }
            kept.push(group.value);
        }
        kept
    }
}
