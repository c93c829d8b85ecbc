//! The six messages that make a session (IPMI 2.0 §13.17 to §13.24).

use std::fmt;

use super::Malformed;
use super::reader::Reader;

/// How authentication, integrity and confidentiality are done, by the numbers of IPMI 2.0 §13.28.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Algorithms {
    /// Authentication: 1 is RAKP-HMAC-SHA1, 3 is RAKP-HMAC-SHA256.
    pub authentication: u8,
    /// Integrity: 1 is HMAC-SHA1-96, 4 is HMAC-SHA256-128.
    pub integrity: u8,
    /// Confidentiality: 1 is AES-CBC-128.
    pub confidentiality: u8,
}

impl Algorithms {
    fn encode(self, out: &mut Vec<u8>) {
        for (kind, algorithm) in [
            (0, self.authentication),
            (1, self.integrity),
            (2, self.confidentiality),
        ] {
            out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut algorithms = [0; 3];
        for (wanted, algorithm) in (0_u8..).zip(&mut algorithms) {
            let [kind, _, _, length, number, ..] = reader.array::<8>()?;
            // A length of 0 asks the BMC to choose; nobody here asks for that.
            if kind != wanted || length != 8 {
                return Err(Malformed::Field("algorithm payload"));
            }
            *algorithm = number & 0x3f;
        }
        let [authentication, integrity, confidentiality] = algorithms;
        Ok(Self {
            authentication,
            integrity,
            confidentiality,
        })
    }
}

/// A status of the handshake (IPMI 2.0 Table 13-15).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Well.
    pub const OK: Self = Self(0x00);
    /// Too many sessions.
    pub const NO_RESOURCES: Self = Self(0x01);
    /// Not a session that it knows.
    pub const INVALID_SESSION: Self = Self(0x02);
    /// Not that authentication algorithm.
    pub const AUTHENTICATION: Self = Self(0x04);
    /// Not that integrity algorithm.
    pub const INTEGRITY: Self = Self(0x05);
    /// Not that role for this user.
    pub const ROLE: Self = Self(0x0a);
    /// No room for a session with that role.
    pub const NO_RESOURCES_FOR_ROLE: Self = Self(0x0b);
    /// No such user.
    pub const NAME: Self = Self(0x0d);
    /// A code does not fit: a wrong password or key.
    pub const CODE: Self = Self(0x0f);
    /// Not that confidentiality algorithm.
    pub const CONFIDENTIALITY: Self = Self(0x10);
    /// Not these algorithms together.
    pub const SUITE: Self = Self(0x11);

    /// Whether the BMC has no room for another session.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self, Self::NO_RESOURCES | Self::NO_RESOURCES_FOR_ROLE)
    }

    /// Whether another role may do; 09h is "invalid role".
    #[must_use]
    pub fn is_about_role(self) -> bool {
        matches!(self, Self(0x09) | Self::ROLE)
    }

    /// Whether the account or its secrets are refused.
    #[must_use]
    pub fn is_about_login(self) -> bool {
        self.is_about_role() || matches!(self, Self::NAME | Self::CODE)
    }

    /// Whether another cipher suite may do.
    #[must_use]
    pub fn is_about_suite(self) -> bool {
        matches!(
            self,
            Self::AUTHENTICATION | Self::INTEGRITY | Self::CONFIDENTIALITY | Self::SUITE
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match *self {
            Self::OK => "well",
            full if full.is_full() => "no room for another session",
            Self::INVALID_SESSION => "unknown session",
            Self::ROLE => "the account may not have this role",
            Self::NAME => "unknown user name",
            Self::CODE => "wrong password or key",
            suite if suite.is_about_suite() => "cipher suite not supported",
            Self(other) => return write!(out, "status {other:02X}h"),
        };
        write!(out, "{words} (status {:02X}h)", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The role byte of RAKP 1: a privilege level, and in bit 4 that the user is looked up by name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role(pub u8);

/// Open Session Request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// What the reply repeats.
    pub tag: u8,
    /// The most privilege asked for; 0 is as much as there is.
    pub privilege: u8,
    /// The console's id of the session.
    pub console: u32,
    /// The algorithms asked for.
    pub algorithms: Algorithms,
}

impl OpenRequest {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.privilege, 0, 0];
        out.extend_from_slice(&self.console.to_le_bytes());
        self.algorithms.encode(&mut out);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "open session request");
        let [tag, privilege, _, _] = reader.array()?;
        let console = reader.u32()?;
        Ok(Self {
            tag,
            privilege,
            console,
            algorithms: Algorithms::decode(&mut reader)?,
        })
    }
}

/// Open Session Response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    /// The request's tag.
    pub tag: u8,
    /// The console's id of the session.
    pub console: u32,
    /// What the BMC opened, or why not.
    pub opened: Result<Opened, Status>,
}

/// What a BMC opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The most privilege that the session may have.
    pub privilege: u8,
    /// The BMC's id of the session.
    pub bmc: u32,
    /// The algorithms that it will use.
    pub algorithms: Algorithms,
}

impl OpenReply {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (status, privilege) = match self.opened {
            Ok(opened) => (Status::OK, opened.privilege),
            Err(status) => (status, 0),
        };
        let mut out = vec![self.tag, status.0, privilege, 0];
        out.extend_from_slice(&self.console.to_le_bytes());
        if let Ok(opened) = self.opened {
            out.extend_from_slice(&opened.bmc.to_le_bytes());
            opened.algorithms.encode(&mut out);
        }
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "open session reply");
        let [tag, status] = reader.array()?;
        let status = Status(status);
        if status != Status::OK {
            // Some BMCs end here, others after the console's id.
            let console = reader.u16().and_then(|_| reader.u32()).unwrap_or(0);
            return Ok(Self {
                tag,
                console,
                opened: Err(status),
            });
        }
        let [privilege, _] = reader.array()?;
        let console = reader.u32()?;
        let bmc = reader.u32()?;
        let algorithms = Algorithms::decode(&mut reader)?;
        Ok(Self {
            tag,
            console,
            opened: Ok(Opened {
                privilege,
                bmc,
                algorithms,
            }),
        })
    }
}

/// RAKP message 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rakp1<'a> {
    /// What the reply repeats.
    pub tag: u8,
    /// The BMC's id of the session.
    pub bmc: u32,
    /// The console's random number.
    pub random: [u8; 16],
    /// The role asked for.
    pub role: Role,
    /// The user's name; at most 16 bytes.
    pub user: &'a [u8],
}

impl<'a> Rakp1<'a> {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.bmc.to_le_bytes());
        out.extend_from_slice(&self.random);
        out.extend_from_slice(&[
            self.role.0,
            0,
            0,
            u8::try_from(self.user.len()).unwrap_or(u8::MAX),
        ]);
        out.extend_from_slice(self.user);
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "rakp 1");
        let [tag, _, _, _] = reader.array()?;
        let bmc = reader.u32()?;
        let random = reader.array()?;
        let [role, _, _, length] = reader.array()?;
        if length > 16 {
            return Err(Malformed::Field("user name length"));
        }
        Ok(Self {
            tag,
            bmc,
            random,
            role: Role(role),
            user: reader.take(usize::from(length))?,
        })
    }
}

/// RAKP message 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rakp2<'a> {
    /// The request's tag.
    pub tag: u8,
    /// The console's id of the session.
    pub console: u32,
    /// What the BMC proves, or why not.
    pub proof: Result<BmcProof<'a>, Status>,
}

/// What a BMC proves in RAKP 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BmcProof<'a> {
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The system GUID.
    pub guid: [u8; 16],
    /// The key exchange authentication code.
    pub code: &'a [u8],
}

impl<'a> Rakp2<'a> {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(self.tag, self.proof.as_ref().err().copied(), self.console);
        if let Ok(proof) = &self.proof {
            out.extend_from_slice(&proof.random);
            out.extend_from_slice(&proof.guid);
            out.extend_from_slice(proof.code);
        }
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "rakp 2");
        let (tag, console, status) = head(&mut reader)?;
        if status != Status::OK {
            return Ok(Self {
                tag,
                console,
                proof: Err(status),
            });
        }
        let proof = BmcProof {
            random: reader.array()?,
            guid: reader.array()?,
            code: reader.rest(),
        };
        Ok(Self {
            tag,
            console,
            proof: Ok(proof),
        })
    }
}

/// RAKP message 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rakp3<'a> {
    /// What the reply repeats.
    pub tag: u8,
    /// The BMC's id of the session.
    pub bmc: u32,
    /// The key exchange authentication code, or why the console gives up.
    pub proof: Result<&'a [u8], Status>,
}

impl<'a> Rakp3<'a> {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(self.tag, self.proof.err(), self.bmc);
        out.extend_from_slice(self.proof.unwrap_or_default());
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "rakp 3");
        let (tag, bmc, status) = head(&mut reader)?;
        let proof = if status == Status::OK {
            Ok(reader.rest())
        } else {
            Err(status)
        };
        Ok(Self { tag, bmc, proof })
    }
}

/// RAKP message 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rakp4<'a> {
    /// The request's tag.
    pub tag: u8,
    /// The console's id of the session.
    pub console: u32,
    /// The integrity check value, or why not.
    pub proof: Result<&'a [u8], Status>,
}

impl<'a> Rakp4<'a> {
    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(self.tag, self.proof.err(), self.console);
        out.extend_from_slice(self.proof.unwrap_or_default());
        out
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "rakp 4");
        let (tag, console, status) = head(&mut reader)?;
        let proof = if status == Status::OK {
            Ok(reader.rest())
        } else {
            Err(status)
        };
        Ok(Self {
            tag,
            console,
            proof,
        })
    }
}

fn begin(tag: u8, status: Option<Status>, session: u32) -> Vec<u8> {
    let mut out = vec![tag, status.unwrap_or(Status::OK).0, 0, 0];
    out.extend_from_slice(&session.to_le_bytes());
    out
}

fn head(reader: &mut Reader<'_>) -> Result<(u8, u32, Status), Malformed> {
    let [tag, status, _, _] = reader.array()?;
    Ok((tag, reader.u32()?, Status(status)))
}
