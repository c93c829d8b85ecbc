//! One definition for several architectures, loaded for one of them.

use super::*;

#[test]
fn an_image_of_several_architectures_is_loaded_for_one() {
    let base = BASE
        .replace("[\"amd64\"]", "[\"amd64\", \"arm64\"]")
        .replace("\"trixie\" }]", "\"trixie\", architectures = [\"amd64\"] }, { archive = \"ports\", suite = \"trixie\", architectures = [\"arm64\"] }]")
        .replace("[\"bash\"", "[\"bash\", \"grub-efi-{architecture}-bin\"");
    let site = site(&[
        ("base/image.toml", &base),
        ("base/keys.pgp", ""),
        (
            "host/image.toml",
            "name = \"host\"\nextends = \"../base\"\narchitectures = [\"arm64\"]\n",
        ),
    ]);
    let of = |image: &str, architecture| load_for(&site.path().join(image), architecture);
    let cases = [
        ("base", None, "amd64", "debian", "image.lock", "base"),
        (
            "base",
            Some("arm64"),
            "arm64",
            "ports",
            "image.arm64.lock",
            "base-arm64",
        ),
        ("host", None, "arm64", "ports", "image.lock", "host"),
    ];
    for (image, asked, architecture, archive, lock, name) in cases {
        let loaded = of(image, asked).unwrap();
        assert_eq!(loaded.architecture, architecture);
        let archives: Vec<_> = loaded
            .distribution
            .suites
            .iter()
            .map(|suite| suite.archive.as_str())
            .collect();
        assert_eq!(archives, [archive]);
        assert!(loaded.lock_path().ends_with(lock));
        assert_eq!(loaded.image_name(), name);
        let install = &loaded.packages.unwrap().install;
        assert!(
            install
                .iter()
                .any(|package| package.name == format!("grub-efi-{architecture}-bin"))
        );
    }
    let problems = of("host", Some("amd64")).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0]
            .to_string()
            .contains("it is for `arm64`, and not for `amd64`"),
        "{}",
        problems[0]
    );
}
