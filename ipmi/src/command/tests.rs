//! Commands against a BMC of scripted answers.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::bmc::{BootDevice, BootFirmware, BootOverride, Persistence};

/// Answers what it was told to, and remembers what it was asked.
struct Script {
    answers: VecDeque<(u8, Vec<u8>)>,
    asked: Vec<Vec<u8>>,
}

impl Transact for Script {
    async fn transact(&mut self, _: NetFn, command: u8, data: &[u8]) -> Result<Answered, Error> {
        self.asked.push([&[command][..], data].concat());
        let (code, data) = self.answers.pop_front().unwrap_or((0xc1, Vec::new()));
        Ok(Answered {
            code: Code(code),
            data,
        })
    }
}

fn script(answers: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Script {
    Script {
        answers: answers.into_iter().collect(),
        asked: Vec::new(),
    }
}

fn network(persistence: Persistence, firmware: BootFirmware) -> BootOverride {
    BootOverride {
        device: BootDevice::Network,
        persistence,
        firmware,
    }
}

#[test]
fn boot_flags_are_the_bytes_that_ipmitool_sends() {
    use BootFirmware::{Bios, Uefi};
    use Persistence::{Once, Persistent};
    let cases = [
        (network(Once, Bios), [0x80, 0x04, 0, 0, 0]),
        (network(Once, Uefi), [0xa0, 0x04, 0, 0, 0]),
        (network(Persistent, Bios), [0xc0, 0x04, 0, 0, 0]),
        (network(Persistent, Uefi), [0xe0, 0x04, 0, 0, 0]),
    ];
    for (boot, bytes) in cases {
        assert_eq!(BootFlags::from_override(&boot), Ok(BootFlags(bytes)));
        assert_eq!(BootFlags(bytes).to_override(), Some(boot));
    }
    let gone = BootFlags([0x20, 0x04, 0, 0, 0]).to_override().unwrap();
    assert_eq!(gone.device, BootDevice::None, "not valid is no override");
    let http = BootOverride {
        device: BootDevice::Http { uri: None },
        ..network(Once, Uefi)
    };
    assert!(matches!(
        BootFlags::from_override(&http),
        Err(Error::Unsupported { .. })
    ));
}

#[tokio::test]
async fn a_refused_boot_device_is_an_error_and_the_bmc_is_left_in_order() {
    let boot = network(Persistence::Once, BootFirmware::Uefi);
    let answers = [0, 0xcc, 0, 0xcc, 0].map(|code| (code, Vec::new()));
    let mut bmc = script(answers);
    let error = set_boot(&mut bmc, &boot).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert_eq!(
        bmc.asked,
        [
            vec![8, 0, 1],
            vec![8, 3, 8],
            vec![8, 4, 1, 1],
            vec![8, 5, 0xa0, 4, 0, 0, 0],
            vec![8, 0, 0]
        ]
    );
}

#[tokio::test]
async fn power_is_on_off_or_unknown() {
    let unknown = |state: &PowerState| matches!(state, PowerState::Unknown { .. });
    for (code, data) in [(0, vec![1, 0, 0]), (0, vec![0x20, 0, 0, 0]), (0xff, vec![])] {
        let state = power(&mut script([(code, data.clone())])).await.unwrap();
        let right = match (code, data.first()) {
            (0, Some(1)) => state == PowerState::On,
            (0, _) => state == PowerState::Off,
            _ => unknown(&state),
        };
        assert!(right, "{state}");
    }
    for (code, data) in [(0, vec![1, 0]), (0, vec![]), (0xd4, vec![]), (0xc1, vec![])] {
        assert!(power(&mut script([(code, data)])).await.is_err());
    }
}

proptest! {
    #[test]
    fn no_reply_makes_a_command_panic(code: u8, data in proptest::collection::vec(any::<u8>(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let answer = || script([(code, data.clone())]);
            drop(power(&mut answer()).await);
            drop(device_id(&mut answer()).await);
            drop(system_guid(&mut answer()).await);
            drop(lan_mac(&mut answer()).await);
            drop(read_boot(&mut answer()).await);
        });
    }

    #[test]
    fn what_flags_mean_can_be_said_in_flags_again(flags: [u8; 5]) {
        if let Some(boot) = BootFlags(flags).to_override() {
            let again = BootFlags::from_override(&boot).unwrap().to_override().unwrap();
            prop_assert_eq!(&again.device, &boot.device);
            if boot.device != BootDevice::None {
                prop_assert_eq!(again, boot);
            }
        }
    }
}
