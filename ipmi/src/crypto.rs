//! Keys, codes and encryption of RMCP+ sessions, for both ends.
//!
//! Codes are compared in constant time, keys are wiped when dropped, and suites weaker than 3 do not exist here.

use std::fmt;

use aes::Aes128;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt as _, BlockModeEncrypt as _, KeyIvInit as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::wire::{Algorithms, Kind, Malformed, Packet};

/// A password or key as IPMI 2.0 keeps it: 20 bytes, filled up with zeros.
pub type Key = Zeroizing<[u8; 20]>;

/// `secret` as IPMI 2.0 keeps it; none if it is too long.
#[must_use]
pub fn key(secret: &[u8]) -> Option<Key> {
    let mut key = Key::default();
    key.get_mut(..secret.len())?.copy_from_slice(secret);
    Some(key)
}

/// A cipher suite that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    /// What it is made of.
    #[must_use]
    pub fn algorithms(self) -> Algorithms {
        let (authentication, integrity) = match self {
            Self::Three => (1, 1),
            Self::Seventeen => (3, 4),
        };
        Algorithms {
            authentication,
            integrity,
            confidentiality: 1,
        }
    }

    /// The suite made of `algorithms`, if we speak it.
    #[must_use]
    pub fn from_algorithms(algorithms: Algorithms) -> Option<Self> {
        [Self::Three, Self::Seventeen]
            .into_iter()
            .find(|suite| suite.algorithms() == algorithms)
    }

    /// How long the code at the end of a packet is, and the one in RAKP 4.
    fn tag(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }

    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Code {
        match self {
            Self::Three => {
                let mut mac =
                    Hmac::<Sha1>::new_from_slice(key).expect("hmac takes keys of any length");
                for part in parts {
                    mac.update(part);
                }
                Code::new(&mac.finalize().into_bytes())
            }
            Self::Seventeen => {
                let mut mac =
                    Hmac::<Sha256>::new_from_slice(key).expect("hmac takes keys of any length");
                for part in parts {
                    mac.update(part);
                }
                Code::new(&mac.finalize().into_bytes())
            }
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Three => "3",
            Self::Seventeen => "17",
        })
    }
}

/// A code of up to 32 bytes.
#[derive(Clone)]
pub struct Code {
    bytes: Zeroizing<[u8; 32]>,
    length: usize,
}

impl Code {
    fn new(bytes: &[u8]) -> Self {
        let mut code = Self {
            bytes: Zeroizing::default(),
            length: bytes.len().min(32),
        };
        code.bytes[..code.length].copy_from_slice(&bytes[..code.length]);
        code
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn cut(mut self, length: usize) -> Self {
        self.length = self.length.min(length);
        self
    }

    /// Whether `other` is the same, in a time that does not tell where it differs.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.as_bytes().ct_eq(other).into()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Code")
    }
}

/// What both ends have said when RAKP 2 is through.
#[derive(Clone, Debug)]
pub struct Exchange<'a> {
    /// The suite.
    pub suite: Suite,
    /// The console's id of the session.
    pub console: u32,
    /// The BMC's id of the session.
    pub bmc: u32,
    /// The console's random number.
    pub console_random: [u8; 16],
    /// The BMC's random number.
    pub bmc_random: [u8; 16],
    /// The BMC's GUID.
    pub guid: [u8; 16],
    /// The role byte of RAKP 1, whole: with its bit for the lookup by name.
    pub role: u8,
    /// The user's name.
    pub user: &'a [u8],
}

impl Exchange<'_> {
    fn length(&self) -> u8 {
        u8::try_from(self.user.len()).unwrap_or(u8::MAX)
    }

    /// The code of RAKP 2, by which a BMC proves that it knows the password.
    #[must_use]
    pub fn rakp2(&self, password: &Key) -> Code {
        let (console, bmc) = (self.console.to_le_bytes(), self.bmc.to_le_bytes());
        let role = [self.role, self.length()];
        let parts = [
            &console[..],
            &bmc,
            &self.console_random,
            &self.bmc_random,
            &self.guid,
            &role,
            self.user,
        ];
        self.suite.hmac(&password[..], &parts)
    }

    /// The code of RAKP 3, by which the console proves it.
    #[must_use]
    pub fn rakp3(&self, password: &Key) -> Code {
        let parts = [
            &self.bmc_random[..],
            &self.console.to_le_bytes(),
            &[self.role, self.length()],
            self.user,
        ];
        self.suite.hmac(&password[..], &parts)
    }

    /// The session integrity key, from the BMC's key or else the password.
    fn session_key(&self, kg: &Key) -> Code {
        let parts = [
            &self.console_random[..],
            &self.bmc_random,
            &[self.role, self.length()],
            self.user,
        ];
        self.suite.hmac(&kg[..], &parts)
    }

    /// The code of RAKP 4, and the keys of the session; `kg` is the BMC's key or else the password.
    #[must_use]
    pub fn keys(&self, kg: &Key) -> (Code, Keys) {
        let session = self.session_key(kg);
        let parts = [
            &self.console_random[..],
            &self.bmc.to_le_bytes(),
            &self.guid,
        ];
        let rakp4 = self
            .suite
            .hmac(session.as_bytes(), &parts)
            .cut(self.suite.tag());
        // The constants have 20 bytes with SHA-256 too: with 32, ipmitool and freeipmi refuse each packet.
        let integrity = self.suite.hmac(session.as_bytes(), &[&[1; 20]]);
        let mut confidentiality = Zeroizing::new([0; 16]);
        confidentiality
            .copy_from_slice(&self.suite.hmac(session.as_bytes(), &[&[2; 20]]).as_bytes()[..16]);
        (
            rakp4,
            Keys {
                suite: self.suite,
                integrity,
                confidentiality,
            },
        )
    }
}

/// The keys of one session.
#[derive(Clone)]
pub struct Keys {
    suite: Suite,
    integrity: Code,
    confidentiality: Zeroizing<[u8; 16]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Why a packet of a session is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// It has no code, or is not encrypted.
    #[error("a packet without encryption or code")]
    Bare,
    /// Its code does not fit.
    #[error("a packet with a wrong code")]
    Code,
    /// Its payload does not decrypt to anything.
    #[error("a packet with impossible padding")]
    Padding,
}

impl From<Malformed> for Forged {
    fn from(_: Malformed) -> Self {
        Self::Padding
    }
}

impl Keys {
    /// The suite that they are for.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Encodes a whole datagram with `payload` encrypted under `iv`, which must be random.
    ///
    /// # Panics
    /// Never: what is encrypted is filled up to whole blocks before.
    #[must_use]
    pub fn seal(
        &self,
        kind: Kind,
        session: u32,
        sequence: u32,
        iv: [u8; 16],
        payload: &[u8],
    ) -> Vec<u8> {
        // AES payload trailer: 1, 2, 3 … and their count, up to a multiple of 16 (§13.29).
        let padding = (16 - (payload.len() + 1) % 16) % 16;
        let sealed = 16 + payload.len() + padding + 1;
        let mut out = Vec::with_capacity(24 + sealed + 24);
        crate::wire::begin_sealed(&mut out, kind, session, sequence, sealed);
        out.extend_from_slice(&iv);
        let from = out.len();
        out.extend_from_slice(payload);
        out.extend((1..=15_u8).take(padding));
        out.push(u8::try_from(padding).unwrap_or(0));
        let length = out.len() - from;
        cbc::Encryptor::<Aes128>::new((&*self.confidentiality).into(), &iv.into())
            .encrypt_padded::<NoPadding>(&mut out[from..], length)
            .expect("the length is a multiple of the block");
        // Integrity trailer: FF up to a multiple of 4 with the two bytes that follow (§13.28.4).
        let covered = out.len() - crate::wire::UNCOVERED;
        let padding = (4 - (covered + 2) % 4) % 4;
        out.extend(std::iter::repeat_n(0xff, padding));
        out.extend_from_slice(&[u8::try_from(padding).unwrap_or(0), 0x07]);
        let code = self
            .suite
            .hmac(self.integrity.as_bytes(), &[&out[crate::wire::UNCOVERED..]])
            .cut(self.suite.tag());
        out.extend_from_slice(code.as_bytes());
        out
    }

    /// Verifies a packet and decrypts its payload.
    ///
    /// # Errors
    /// When it is not from the other end of this session.
    pub fn open(&self, packet: &Packet<'_>) -> Result<Vec<u8>, Forged> {
        if !packet.authenticated || !packet.encrypted {
            return Err(Forged::Bare);
        }
        let end = packet
            .covered
            .len()
            .checked_sub(self.suite.tag())
            .ok_or(Forged::Code)?;
        let (body, code) = packet.covered.split_at(end);
        if !self
            .suite
            .hmac(self.integrity.as_bytes(), &[body])
            .cut(self.suite.tag())
            .matches(code)
        {
            return Err(Forged::Code);
        }
        let (iv, sealed) = packet
            .payload
            .split_first_chunk::<16>()
            .ok_or(Forged::Padding)?;
        if sealed.is_empty() || sealed.len() % 16 != 0 {
            return Err(Forged::Padding);
        }
        let mut payload = sealed.to_vec();
        cbc::Decryptor::<Aes128>::new((&*self.confidentiality).into(), iv.into())
            .decrypt_padded::<NoPadding>(&mut payload)
            .map_err(|_| Forged::Padding)?;
        let padding = payload.pop().map_or(0, usize::from);
        let length = payload
            .len()
            .checked_sub(padding)
            .filter(|_| padding < 16)
            .ok_or(Forged::Padding)?;
        if !payload[length..].iter().copied().eq((1..=15).take(padding)) {
            return Err(Forged::Padding);
        }
        payload.truncate(length);
        Ok(payload)
    }
}
