//! What a host is told to load, in the form that its firmware understands.
//!
//! It refuses to tell strangers, and firmware for which there is no loader.

use super::super::firmware::{Firmware, Form, OFFERS_PER_FORM};
use super::super::option;
use super::super::reply::{Reply, Value};
use super::Question;
use crate::site::Mode;

/// Option 43 for PXE: discovery control (6) with bit 3, load the file that is named here.
const SKIP_DISCOVERY: [u8; 4] = [6, 1, 8, option::END];

/// Option 175 for iPXE: there is no ProxyDHCP server to wait for. Its DHCP takes 3 s otherwise.
const NO_PXEDHCP: [u8; 3] = [option::IPXE_NO_PXEDHCP, 1, 1];

impl Question<'_> {
    /// Returns the form in which this client is told what to load; none when it is not told.
    pub(super) fn form(&self) -> Option<Form> {
        self.host?;
        let profile = self.profile;
        if profile.firmware.needs_loader() && profile.loaders.is_empty() {
            return None;
        }
        profile.form(self.network.mode, self.tried.ignored)
    }

    /// Returns the form that comes after this one, if it is another.
    pub(super) fn next_form(&self, form: Form) -> Option<Form> {
        let ignored = self.tried.ignored.saturating_add(OFFERS_PER_FORM);
        self.profile
            .form(self.network.mode, ignored)
            .filter(|next| *next != form)
    }

    /// Adds what to load to a reply.
    pub(super) fn boot(&self, reply: &mut Reply, form: Form) {
        let server = self.network.appliance;
        reply.siaddr = server;
        let file = self.file(form);
        match form {
            Form::Plain | Form::Direct | Form::Port4011 => {
                // Readers differ: header or option, address or text. All say the same.
                let name = server.to_string();
                reply.sname = Some(name.clone().into());
                let name = Value::Ended(name.into());
                reply.options.push((option::TFTP_SERVER, name));
            }
            Form::Http | Form::Script => {}
        }
        reply
            .options
            .push((option::BOOT_FILE, Value::Ended(file.clone().into())));
        // A URL that does not fit the field stands in option 67 only.
        reply.file = (file.len() < 128).then(|| file.into());
        self.boot_options(reply, form);
    }

    fn boot_options(&self, reply: &mut Reply, form: Form) {
        let class: &[u8] = match form {
            Form::Http => b"HTTPClient",
            Form::Direct | Form::Port4011 => b"PXEClient",
            // Beside another server, an offer without it is not looked at.
            Form::Script if self.network.mode == Mode::Proxy => b"PXEClient",
            Form::Plain | Form::Script => b"",
        };
        if !class.is_empty() {
            reply.options.push((option::VENDOR_CLASS, bytes(class)));
        }
        if form == Form::Direct {
            reply.options.push((option::VENDOR, bytes(&SKIP_DISCOVERY)));
        }
        // Some ROMs leave option 97 out; those that send it want it back (RFC 4578 §2.3).
        if let Some(guid) = &self.request.guid_option {
            reply.options.push((option::GUID, bytes(guid)));
        }
        if form == Form::Script && self.network.mode == Mode::Authoritative {
            reply.options.push((option::IPXE, bytes(&NO_PXEDHCP)));
        }
    }

    fn file(&self, form: Form) -> String {
        let loader = self.profile.loader(self.tried.lost()).unwrap_or_default();
        match form {
            Form::Plain | Form::Direct | Form::Port4011 => loader.to_owned(),
            Form::Http => format!("{}/boot/{loader}", self.site.url(self.network)),
            Form::Script => {
                debug_assert_eq!(self.profile.firmware, Firmware::Ipxe);
                let url = self.site.url(self.network);
                // A listed host has one; iPXE on other media than Ethernet is known by GUID.
                let mac = self
                    .request
                    .mac()
                    .or_else(|| self.host?.macs.first().copied());
                let mac = mac.map(crate::Mac::dashed).unwrap_or_default();
                format!("{url}/ipxe/{mac}")
            }
        }
    }
}

fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.into())
}
