use super::*;

fn target(text: &str) -> Result<Target, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn a_target_needs_a_name_and_a_region() {
    let found = target("name = 'prod'\nregions = ['eu-west-1']").unwrap();
    assert_eq!(found.check(), Vec::<String>::new());
    assert!(found.imdsv2 && found.ena && !found.tpm && !found.public);
    assert_eq!(found.boot_mode, BootMode::Uefi);
    assert!(target("name = 'prod'\nregions = []\nregoin = 'x'").is_err());
}

#[test]
fn what_cannot_be_is_told() {
    let cases = [
        ("regions = []", "`regions` is empty"),
        ("regions = ['eu-west-1', 'eu-west-1']", "is there twice"),
        ("regions = ['Ireland']", "is no region"),
        (
            "regions = ['eu-west-1', 'cn-north-1']",
            "several partitions",
        ),
        ("endpoint = 'http://10.0.0.1'", "is no URL of `https`"),
        (
            "endpoint = 'http://127.0.0.1.example'",
            "is no URL of `https`",
        ),
        ("role = 'publisher'", "is no ARN of a role"),
        ("image-name = '{name}'", "has a placeholder"),
        ("image-name = 'a,b'", "3 to 128"),
        ("parameters = ['/aws/x']", "cannot be a parameter's name"),
        ("parameters = ['a/b']", "cannot be a parameter's name"),
        ("parameters = ['/a/{b}']", "has a placeholder"),
        ("parameters = ['/a', '/a']", "is there twice"),
        ("accounts = ['12']", "not of 12 digits"),
        ("organisations = ['o-abc']", "is no ARN"),
        ("organisational-units = ['ou-abc']", "is no ARN"),
        (
            "kms-keys = { us-east-1 = 'arn:aws:kms:us-east-1:1:key/a' }",
            "has no key for `eu-west-1`",
        ),
        (
            "kms-keys = { us-east-1 = 'arn:aws:kms:us-east-1:1:key/a' }",
            "not in `regions`",
        ),
        ("kms-keys = { eu-west-1 = 'alias/a' }", "is no ARN of a key"),
        (
            "public = true\nkms-keys = { eu-west-1 = 'arn:aws:kms:eu-west-1:1:key/a' }",
            "cannot be `public`",
        ),
        ("tags = { 'aws:x' = 'y' }", "tag `aws:x`"),
        (
            "tags = { 'firstboot:image' = 'y' }",
            "tag `firstboot:image`",
        ),
        ("tpm = true\nboot-mode = 'legacy-bios'", "`tpm` needs"),
        ("deprecate-after = 0", "1 to 3650"),
        ("deprecate-after = 800\npublic = true", "1 to 730"),
    ];
    for (text, expected) in cases {
        let regions = if text.contains("regions =") {
            ""
        } else {
            "regions = ['eu-west-1']\n"
        };
        let found = target(&format!("name = 'prod'\n{regions}{text}")).unwrap();
        let problems = found.check();
        let told = problems.iter().any(|problem| problem.contains(expected));
        assert!(told, "{text}: {problems:?}");
    }
}
