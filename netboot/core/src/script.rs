//! The `iPXE` script that boots one host into its image.
//!
//! It refuses commands that the oldest ROM we meet lacks (1.0.0+git-2019, in Debian 12's QEMU), and
//! words that `iPXE` would take for its own.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::Mac;

/// Everything that a script says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<'a> {
    /// Name of the host.
    pub host: &'a str,
    /// Name of the image.
    pub image: &'a str,
    /// `http://ADDRESS[:PORT]` of the appliance.
    pub url: &'a str,
    /// Digest of the kernel, as `sha256:…`.
    pub kernel: &'a str,
    /// Digest of the initrd, as `sha256:…`.
    pub initrd: &'a str,
    /// Kernel arguments of the image, the role and this boot: see [`CommandLine`].
    pub command_line: &'a str,
}

/// The kernel arguments of one boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    /// Arguments of the image and then of the role.
    pub own: &'a [&'a str],
    /// `http://ADDRESS[:PORT]` of the appliance.
    pub url: &'a str,
    /// `https://ADDRESS[:PORT]` of the appliance.
    pub tls: &'a str,
    /// Digest of its authority's certificate, as `sha256:…`.
    pub authority: &'a str,
    /// Id of the boot.
    pub boot: &'a str,
    /// The boot's token.
    pub token: &'a str,
    /// The interface that booted.
    pub mac: Mac,
    /// The host's address; none when another server gives it, so that only `iPXE` knows it.
    pub address: Option<Ipv4Addr>,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The default router.
    pub router: Option<Ipv4Addr>,
}

/// Why there is no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// iPXE would take a word for a command of its own.
    #[error("the word `{0}` means something to iPXE")]
    Word(String),
    /// The text has characters that no kernel argument has.
    #[error("a kernel argument has characters other than printable ASCII")]
    Characters,
    /// The kernel would cut it off.
    #[error("the kernel's command line has {0} bytes, and x86 takes {LONGEST}")]
    Long(usize),
}

/// Bytes of a command line that an x86 kernel takes (`COMMAND_LINE_SIZE` less the NUL).
pub const LONGEST: usize = 2047;

/// Checks that iPXE passes a command line on as it is.
///
/// # Errors
/// When it would not.
pub fn check_command_line(text: &str) -> Result<(), ScriptError> {
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(ScriptError::Characters);
    }
    if text.len() > LONGEST {
        return Err(ScriptError::Long(text.len()));
    }
    text.split(' ').try_for_each(|word| {
        let special = word.starts_with('#') || word.contains("${");
        if special || word == "&&" || word == "||" {
            return Err(ScriptError::Word(word.to_owned()));
        }
        Ok(())
    })
}

impl CommandLine<'_> {
    /// Returns the arguments, separated by single spaces.
    ///
    /// # Errors
    /// When iPXE or the kernel would not take them as they are.
    pub fn render(&self) -> Result<String, ScriptError> {
        let own = self
            .own
            .iter()
            .flat_map(|part| part.split_ascii_whitespace());
        let mut line = own.collect::<Vec<_>>().join(" ");
        if !line.is_empty() {
            line.push(' ');
        }
        let Self {
            url,
            tls,
            authority,
            boot,
            token,
            mac,
            prefix,
            ..
        } = self;
        // Writing to a string cannot fail.
        write!(
            line,
            "firstboot.url={url} firstboot.tls={tls} firstboot.ca={authority} firstboot.boot={boot} firstboot.token={token} firstboot.mac={mac}"
        )
        .ok();
        check_command_line(&line)?;
        match self.address {
            Some(address) => write!(line, " firstboot.ip={address}/{prefix}").ok(),
            // iPXE fills in the address that the network's own server gave it.
            None => write!(line, " firstboot.ip=${{ip}}/{prefix}").ok(),
        };
        if let Some(router) = self.router {
            write!(line, " firstboot.gw={router}").ok();
        }
        // UEFI: the kernel asks its loader for the file of this name. BIOS: iPXE places it.
        line.push_str(" initrd=initrd");
        if line.len() > LONGEST {
            return Err(ScriptError::Long(line.len()));
        }
        Ok(line)
    }
}

impl Script<'_> {
    /// Returns the script.
    #[must_use]
    pub fn render(&self) -> String {
        let Self {
            host,
            image,
            url,
            kernel,
            initrd,
            command_line,
        } = self;
        format!(
            "\
#!ipxe
# {host}: {image}
set tries:int32 0
set pause:int32 1
:try
inc tries
imgfree
echo Firstboot: {host} boots {image}, try ${{tries}}
kernel --name linux {url}/blob/{kernel} {command_line} || goto failed
initrd --name initrd {url}/blob/{initrd} || goto failed
boot || goto failed
:failed
echo Firstboot: {host} could not load {image}; next try in ${{pause}} s
sleep ${{pause}}
inc pause ${{pause}}
iseq ${{tries}} 6 || goto try
echo Firstboot: {host} gives up and starts again
reboot
"
        )
    }
}

/// Returns the script for a client that gets nothing: it says why, waits and asks again.
///
/// A reason is told on the console, because a bare HTTP error is not.
#[must_use]
pub fn refusal(reason: &str) -> String {
    let reason: String = reason
        .chars()
        .map(|letter| match letter {
            ' '..='~' if !matches!(letter, '$' | '#' | '|' | '&') => letter,
            _ => '?',
        })
        .take(200)
        .collect();
    format!(
        "\
#!ipxe
echo Firstboot: {reason}
echo Firstboot: asking again in 30 s
sleep 30
reboot
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(own: &'a [&'a str], address: Option<Ipv4Addr>) -> CommandLine<'a> {
        CommandLine {
            own,
            url: "http://10.77.0.1",
            tls: "https://10.77.0.1",
            authority: "sha256:cc",
            boot: "b1",
            token: "t1",
            mac: Mac([0x52, 0x54, 0, 0, 0, 1]),
            address,
            prefix: 24,
            router: None,
        }
    }

    #[test]
    fn a_script_is_as_its_golden_file() {
        let own = ["console=ttyS0,115200  quiet", ""];
        let mut arguments = line(&own, Some(Ipv4Addr::new(10, 77, 0, 11)));
        arguments.router = Some(Ipv4Addr::new(10, 77, 0, 1));
        let script = Script {
            host: "bios1",
            image: "host",
            url: "http://10.77.0.1",
            kernel: "sha256:aa",
            initrd: "sha256:bb",
            command_line: &arguments.render().unwrap(),
        };
        assert_eq!(script.render(), include_str!("../tests/golden/host.ipxe"));
        let refusal = refusal("no role for 52:54:00:00:00:01 in ${site}\n#!");
        assert_eq!(refusal, include_str!("../tests/golden/refusal.ipxe"));
    }

    #[test]
    fn beside_another_server_the_address_is_ipxes() {
        let line = line(&[], None).render().unwrap();
        assert!(line.contains(" firstboot.ip=${ip}/24 "), "{line}");
    }

    #[test]
    fn words_that_ipxe_would_take_for_its_own_are_refused() {
        let long = "x".repeat(3000);
        for own in ["a && b", "|| b", "#", "a #b", "x=${ip}", "é", &long] {
            assert!(line(&[own], None).render().is_err(), "{own}");
        }
        assert!(line(&["a&&b c#d"], None).render().is_ok());
    }
}
