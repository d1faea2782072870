//! docs/configuration.md lists what can be set: exactly what the programs say of themselves.
#![allow(clippy::expect_used)]

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use clap::Parser;
use infrachat_e2e::program;
use tokio::process::Command;

const PROGRAMS: [&str; 3] = ["gatekeeper", "switchboard", "chat-shard"];
const BEGIN: &str =
    "<!-- what follows is what --help says: made by `make configuration-docs` -->\n";

/// What the test is told, by the environment: the command line is the test runner's.
#[derive(Debug, Parser)]
struct Options {
    /// Write the table instead of comparing it.
    #[arg(long, env = "INFRACHAT_WRITE_DOCS")]
    write_docs: bool,
}

/// A setting, as `--help` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Setting {
    flag: String,
    variable: String,
    default: String,
    values: String,
    meaning: String,
}

/// The settings that a program's `--help` lists.
fn settings(help: &str) -> Vec<Setting> {
    let mut all: Vec<Setting> = Vec::new();
    for line in help.lines() {
        let text = line.trim();
        if let Some(flag) = text
            .strip_prefix("--")
            .filter(|_| line.starts_with("      --"))
        {
            let flag = flag.split([' ', '=']).next().unwrap_or_default();
            all.push(Setting {
                flag: format!("--{flag}"),
                ..Setting::default()
            });
        } else if line.starts_with("  -") || !line.starts_with("          ") {
            // -h, -V, and headings.
            if line.starts_with("  -") {
                all.push(Setting::default());
            }
        } else if let Some(setting) = all.last_mut() {
            let bracket = |name: &str| {
                let rest = text.strip_prefix(&format!("[{name}: "))?;
                Some(rest.trim_end_matches(']').to_owned())
            };
            if let Some(env) = bracket("env") {
                setting.variable = env.split('=').next().unwrap_or_default().to_owned();
            } else if let Some(default) = bracket("default") {
                setting.default = default;
            } else if let Some(value) = text.strip_prefix("- ") {
                let name = value.split(':').next().unwrap_or_default();
                let _ = write!(setting.values, "`{name}` ");
            } else if !text.is_empty() && text != "Possible values:" {
                setting.meaning.push_str(text);
                setting.meaning.push(' ');
            }
        }
    }
    all.retain(|setting| !setting.variable.is_empty());
    all
}

async fn table() -> String {
    // By variable: the setting, and who has it.
    let mut rows: BTreeMap<String, (Setting, Vec<&str>)> = BTreeMap::new();
    for name in PROGRAMS {
        let run = Command::new(program(name)).arg("--help").output();
        let help = run.await.expect("runs").stdout;
        let settings = settings(std::str::from_utf8(&help).expect("UTF-8"));
        assert!(
            settings.len() > 10,
            "{name} has more to say than {settings:?}"
        );
        for setting in settings {
            let variable = setting.variable.clone();
            let row = rows
                .entry(variable)
                .or_insert((setting.clone(), Vec::new()));
            assert_eq!(row.0, setting, "one variable means the same everywhere");
            row.1.push(name);
        }
    }
    let mut table =
        String::from("| variable | flag | programs | default | meaning |\n|---|---|---|---|---|\n");
    for (variable, (setting, programs)) in rows {
        let programs = match programs.len() {
            3 => "all".to_owned(),
            _ => programs.join(", "),
        };
        let default = match setting.default.as_str() {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let meaning = setting
            .meaning
            .trim()
            .replace('|', "\\|")
            .replace('<', "&lt;");
        let values = match setting.values.trim() {
            "" => String::new(),
            values => format!(" ({})", values.replace(' ', ", ")),
        };
        let flag = setting.flag;
        let _ = writeln!(
            table,
            "| `{variable}` | `{flag}` | {programs} | {default} | {meaning}{values} |"
        );
    }
    table
}

#[tokio::test]
async fn the_documented_settings_are_those_of_the_programs() {
    let options = Options::try_parse_from([""]).expect("options");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(&file).expect("docs/configuration.md");
    let (head, documented) = text.split_once(BEGIN).expect("the mark before the table");
    let table = table().await;
    if options.write_docs {
        std::fs::write(&file, format!("{head}{BEGIN}\n{table}")).expect("writes");
        return;
    }
    assert!(
        documented.trim() == table.trim(),
        "docs/configuration.md is not what the programs say: run `make configuration-docs`"
    );
}

#[tokio::test]
async fn compose_tells_the_programs_only_what_they_know() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose.yaml");
    let text = std::fs::read_to_string(&file).expect("compose.yaml");
    let table = table().await;
    let words = text
        .split([' ', '{', ',', '\n'])
        .filter_map(|word| word.strip_suffix(':'));
    let shouted = words.filter(|word| {
        word.len() > 3
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || "_0123456789".contains(c))
    });
    let told: Vec<_> = shouted.collect();
    assert!(told.len() > 20, "it tells them a lot: {told:?}");
    for variable in told {
        assert!(
            table.contains(&format!("| `{variable}` |")),
            "{variable} is unknown"
        );
    }
}
