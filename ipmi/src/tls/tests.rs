//! The judgement of certificates, against certificates made here.
