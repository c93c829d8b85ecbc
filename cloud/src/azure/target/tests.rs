use crate::Targets;
use crate::targets::Problem;

const TARGET: &str = r#"
[[azure]]
name = "azure"
subscription = "01234567-89ab-cdef-0123-456789abcdef"
resource-group = "images"
location = "westeurope"
storage-account = "firstboot"
container = "disks"
image-name = "{image}-{version}"
"#;

#[test]
fn the_target_in_the_readme_is_one() {
    let readme = include_str!("../../../README.md");
    let (_, azure) = readme.split_once("\n## Azure\n").unwrap();
    let (_, text) = azure.split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let targets = Targets::parse(text).unwrap();
    assert_eq!(targets.azure[0].gallery.as_ref().unwrap().regions.len(), 2);
}

#[test]
#[expect(clippy::too_many_lines, reason = "it is one table")]
fn everything_that_is_wrong_is_told() {
    let gallery = r#"gallery = { name = "g", publisher = "p", regions = [{ name = "westeurope" }]"#;
    let image = "image-name = \"{image}-{version}\"";
    let of_gallery = |more: &str| (image, format!("{gallery}{more} }}"));
    let cases = [
        ("a whole one", (image, image.to_owned()), ""),
        ("a gallery", of_gallery(""), ""),
        (
            "an unknown key",
            (image, format!("{image}\ncolour = 1")),
            "colour",
        ),
        ("neither", (image, String::new()), "either `image-name`"),
        (
            "both",
            (
                "container = \"disks\"",
                format!("container = \"disks\"\n{gallery} }}"),
            ),
            "either `image-name`",
        ),
        (
            "no id",
            ("01234567-89ab-cdef-0123-456789abcdef", "mine".to_owned()),
            "`subscription`",
        ),
        (
            "a region's title",
            ("\"westeurope\"", "\"West Europe\"".to_owned()),
            "`location`",
        ),
        (
            "an account",
            ("\"firstboot\"", "\"First-Boot\"".to_owned()),
            "`storage-account`",
        ),
        (
            "a container",
            ("\"disks\"", "\"-disks\"".to_owned()),
            "`container`",
        ),
        (
            "our tag",
            (
                image,
                format!("{image}\ntags = {{ \"firstboot:image\" = \"x\" }}"),
            ),
            "are taken",
        ),
        (
            "a bad tag",
            (image, format!("{image}\ntags = {{ \"a/b\" = \"x\" }}")),
            "tag `a/b`",
        ),
        (
            "no time",
            (image, format!("{image}\ntimeout-minutes = 0")),
            "`timeout-minutes`",
        ),
        (
            "plain http",
            (
                image,
                format!("{image}\nendpoints = {{ arm = \"http://example.org\" }}"),
            ),
            "endpoint `arm`",
        ),
        (
            "a fake",
            (
                image,
                format!("{image}\nendpoints = {{ arm = \"http://127.0.0.1:1\" }}"),
            ),
            "",
        ),
        (
            "protection without an end",
            of_gallery(", protect = true"),
            "`protect`",
        ),
        (
            "no controllers",
            of_gallery(", disk-controllers = []"),
            "`disk-controllers`",
        ),
        (
            "an unknown security",
            of_gallery(", security-type = \"Best\""),
            "Best",
        ),
        (
            "nobody's id",
            of_gallery(", share = { tenants = [\"me\"] }"),
            "`share`",
        ),
        (
            "shared in two ways",
            of_gallery(
                ", share = { community = true, tenants = [\"01234567-89ab-cdef-0123-456789abcdef\"] }",
            ),
            "not both",
        ),
        (
            "BIOS with security",
            (
                image,
                format!(
                    "{gallery}, security-type = \"TrustedLaunch\" }}\nhyper-v-generation = \"V1\""
                ),
            ),
            "`security-type`",
        ),
    ];
    for (name, (from, to), expected) in cases {
        let said = match Targets::parse(&TARGET.replacen(from, &to, 1)) {
            Ok(_) => String::new(),
            Err(problems) => told(&problems),
        };
        assert!(
            said.is_empty() == expected.is_empty() && said.contains(expected),
            "{name}: {said}"
        );
    }
    let elsewhere =
        TARGET
            .replace(image, &format!("{gallery} }}"))
            .replacen("westeurope", "eastus", 1);
    let said = told(&Targets::parse(&elsewhere).unwrap_err());
    assert!(said.contains("`regions` lack `eastus`"), "{said}");
}

fn told(problems: &[Problem]) -> String {
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    said.join("\n")
}
