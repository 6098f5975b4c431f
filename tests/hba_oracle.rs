//! The parser of rules and maps beside PostgreSQL's own: the views `pg_hba_file_rules` and `pg_ident_file_mappings` over
//! the same files, and expressions beside `regexp_match`.
//!
//! The property: **what pgsluice takes, PostgreSQL takes, and as the same rule.** What PostgreSQL takes and pgsluice
//! refuses is for a reason of [`REFUSED`].
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs;
use std::path::Path;

use pgsluice::auth::hba::{HbaError, IdentMaps, Rules};
use pgsluice::config::Disk;
use support::cluster::{Cluster, shared};
use support::{Random, seed};

/// What pgsluice says where it refuses what PostgreSQL takes.
const REFUSED: &[&str] = &[
    "which user belongs to which role", // +role, samerole, samegroup: needs the catalogue
    "is a host name",                   // no lookups
    "pgsluice does not support it",     // ident, gss, pam, ldap, radius
    "invalid IP address",               // getaddrinfo takes 10.1 and 010.0.0.1, and zones
    "unrecognized authentication option name", // of those methods, and clientname
    "only valid for peer and cert",     // map= with ident, gss
    "invalid regular expression",       // dialects; and PostgreSQL 15 took /name as a name
    "is not certain with this regular expression",
    "write \\1 once, without quotes",
];

/// The line that an error belongs to, and what both say of it: `Ok` the rule, `Err` the words.
type Said = (usize, Result<String, String>);

fn compare(what: &str, lines: &[String], theirs: &[Said], ours: &[Said]) -> usize {
    let find = |list: &[Said], line: usize| list.iter().find(|(at, _)| *at == line).map(|(_, said)| said.clone());
    let mut same = 0;
    for (index, text) in lines.iter().enumerate() {
        match (find(theirs, index + 1), find(ours, index + 1)) {
            (None, None) => {}
            (Some(Ok(their)), Some(Ok(our))) => {
                assert_eq!(our, their, "{what}: {text:?}");
                same += 1;
            }
            (Some(Err(_)), Some(Err(_))) => same += 1,
            (Some(Ok(_)), Some(Err(why))) if REFUSED.iter().any(|reason| why.contains(reason)) => {}
            // The embedded PostgreSQL has no TLS.
            (Some(Err(why)), Some(Ok(our))) if why.contains("not supported by this build") && our.contains(" cert") => {
            }
            (their, our) => panic!("{what}: {text:?}\nPostgreSQL: {their:?}\npgsluice: {our:?}"),
        }
    }
    same
}

fn hba(cluster: &Cluster, lines: &[String]) -> usize {
    let path = cluster.socket_dir().join("data/pg_hba.conf");
    fs::write(&path, lines.join("\n")).unwrap();
    let sql = "SELECT line_number, coalesce(error, ''), concat_ws(' ', type, array_to_string(database, ','), \
               array_to_string(user_name, ','), address, netmask, auth_method, array_to_string(options, ' ')) \
               FROM pg_hba_file_rules";
    let theirs: Vec<Said> = cluster
        .connect()
        .simple(sql)
        .unwrap()
        .into_iter()
        .map(|row| {
            let [line, error, rule] = &row[..] else { panic!("three columns") };
            let (line, error) = (line.as_ref().unwrap().parse().unwrap(), error.clone().unwrap());
            let rule = rule.clone().unwrap();
            // Such a record is taken, with a warning.
            let matches_nobody = error.contains("record cannot match");
            (line, if error.is_empty() || matches_nobody && !rule.is_empty() { Ok(rule) } else { Err(error) })
        })
        .collect();
    let ours: Vec<Said> = Rules::read(&path, &Disk)
        .into_iter()
        .map(|read| match read {
            Ok(rule) => (rule.line, Ok(rule.to_string())),
            Err(HbaError { line, message, .. }) => (line, Err(message)),
        })
        .collect();
    compare("pg_hba.conf", lines, &theirs, &ours)
}

/// One of the words, by the generator.
fn pick<'a>(random: &mut Random, words: &[&'a str]) -> &'a str {
    words[random.below(words.len() as u64) as usize]
}

#[test]
fn rules_are_those_of_postgresql() {
    let cluster = Cluster::start(&[]);
    let dir = cluster.socket_dir().join("data");
    fs::write(dir.join("names"), "one, two \"th ree\"\n# none\n@more\n").unwrap();
    fs::write(dir.join("more"), "\"all\" four\"\"\"\"").unwrap();
    let mut lines: Vec<String> = include_str!("hba_lines.txt").lines().map(str::to_owned).collect();
    // The documentation's examples, Debian's file, and every way to write it wrong.
    let table = hba(&cluster, &lines);
    assert!(table > lines.len() / 2, "{table} of {} lines are judged alike", lines.len());

    let mut random = Random::new(seed());
    lines.clear();
    for _ in 0..4_000 {
        let mut line = String::from(pick(&mut random, &["", " ", "\t"]));
        for words in [
            &[
                "local",
                "host",
                "host",
                "host",
                "hostssl",
                "hostnossl",
                "hostgssenc",
                "hostnogssenc",
                "\"host\"",
                "HOST",
            ][..],
            &[
                "all",
                "app",
                "\"all\"",
                "a,b",
                "a, \"b c\"",
                "sameuser",
                "replication",
                "samerole",
                "@names",
                "/^a",
                "a\"l\"l",
                "@gone",
            ],
            &["all", "app", "\"all\"", "u,v,", "+role", "\"+role\"", "/^u$", "\"x\"\"y\"", "@more", "\"/[\""],
            &[
                "",
                "",
                "10.0.0.0/8",
                "10.0.0.5 255.0.0.255",
                "::1/128",
                "fd00:: ffff::",
                "all",
                "samehost",
                "samenet",
                "\"all\"",
                "db.x",
                "10.0.0.0/33",
                "10.0.0.1",
                "::1/0",
                "0.0.0.0/0",
                "1.2.3.4/",
                "::ffff:1.2.3.4/104",
                "10.0.0.0/8,x",
                "1.2.3.4 ::",
            ],
            &[
                "trust",
                "reject",
                "md5",
                "password",
                "scram-sha-256",
                "peer",
                "cert",
                "ident",
                "\"md5\"",
                "MD5",
                "md5,trust",
                "",
                "x",
                "gss",
            ],
            &[
                "",
                "",
                "",
                "map=m",
                "clientcert=verify-ca",
                "clientcert=verify-full",
                "clientcert=1",
                "x=y",
                "map",
                "# comment",
                "\"map=a b\"",
            ],
        ] {
            line.push_str(pick(&mut random, words));
            line.push_str(pick(&mut random, &[" ", " ", "  ", "\t", " \t ", ",", " #"]));
        }
        lines.push(line);
    }
    let alike = hba(&cluster, &lines);
    assert!(alike > 2_000, "{alike} of {} random lines are judged alike", lines.len());
}

/// Continued lines and included files: whole files, the order of the rules.
#[test]
fn files_are_those_of_postgresql() {
    let cluster = Cluster::start(&[]);
    let dir = cluster.socket_dir().join("data");
    fs::create_dir(dir.join("d")).unwrap();
    for (name, text) in [
        ("d/2.conf", "local two all trust\n"),
        ("d/1.conf", "local one \\\n all trust\ninclude ../third"),
        ("d/.0.conf", "nonsense\n"),
        ("d/read.me", "nonsense\n"),
        ("third", "local third @names trust"),
        ("names", "a\\\nb \"c d\" \\\n"),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    let mut texts = vec![
        "local all all trust \\",
        "local \\\n\n all all trust\nlocal a all trust",
        "local a\\\\\n all trust",
        "local a\\\\\n\\\n\\\n all trust # \\\nlocal x y trust\nlocal b all trust\r\n\r\nlocal c all trust",
        "local \"a\\\nb\" all trust",
        "local a all trust #\\\\\n\nlocal b all trust",
        "\\\n\\\n\nlocal a all trust\n\\",
        "local a @names trust\nlocal @names all trust",
        " # comment \\\n still \\\n\nlocal a all trust",
    ];
    if cluster.version() >= 16 {
        texts.push(
            "include d/1.conf\ninclude_if_exists gone\ninclude_dir d\n\"include\" \"third\"\nlocal last all trust",
        );
    }
    for text in texts {
        fs::write(dir.join("pg_hba.conf"), text).unwrap();
        let theirs = cluster.psql(
            "SELECT line_number, concat_ws(' ', type, array_to_string(database, ','), array_to_string(user_name, ','), \
             auth_method), coalesce(error, '') FROM pg_hba_file_rules",
        );
        let ours: Vec<String> = Rules::read(&dir.join("pg_hba.conf"), &Disk)
            .into_iter()
            .map(|read| {
                read.map_or_else(
                    |error| format!("{}||{}", error.line, error.message),
                    |rule| format!("{}|{rule}|", rule.line),
                )
            })
            .collect();
        assert_eq!(ours.join("\n"), theirs, "{text:?}");
    }
}

#[test]
fn maps_are_those_of_postgresql() {
    let cluster = Cluster::start(&[]);
    let path = cluster.socket_dir().join("data/pg_ident.conf");
    let mut random = Random::new(seed());
    let lines: Vec<String> = (0..1_000)
        .map(|_| {
            let mut line = String::new();
            for words in [
                &["m", "\"a map\"", "m,n", "all", ""][..],
                &["root", "\"ro ot\"", "/^(.*)@x$", "\"/^a{2,3}$\"", "/(", "a,b", "/^b", "+r", ""],
                &["app", "\"app\"", "\\1", "x\\1y", "all", "\"all\"", "/^a", "+role", "\"\\1\"", "a,b", ""],
                &["", "", "# comment", "more"],
            ] {
                line.push_str(pick(&mut random, words));
                line.push(' ');
            }
            line
        })
        .collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let sql = "SELECT line_number, coalesce(error, ''), concat_ws(' ', map_name, sys_name, pg_username) FROM pg_ident_file_mappings";
    let theirs: Vec<Said> = cluster
        .connect()
        .simple(sql)
        .unwrap()
        .into_iter()
        .map(|row| {
            let error = row[1].clone().unwrap();
            let line = row[0].as_ref().unwrap().parse().unwrap();
            (line, if error.is_empty() { Ok(row[2].clone().unwrap()) } else { Err(error) })
        })
        .collect();
    let one = cluster.socket_dir().join("one");
    let ours: Vec<Said> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| {
            fs::write(&one, line).unwrap();
            match IdentMaps::load(&one, &Disk) {
                Ok(maps) => Some((index + 1, Ok(maps.to_string().trim_end_matches('\n').to_owned())))
                    .filter(|said| said.1 != Ok(String::new())),
                Err(errors) => Some((index + 1, Err(errors[0].message.clone()))),
            }
        })
        .collect();
    let alike = compare("pg_ident.conf", &lines, &theirs, &ours);
    assert!(alike > 400, "{alike} of {} lines are judged alike", lines.len());
}

/// An expression that is taken matches what it matches in PostgreSQL, and catches the same.
#[test]
fn expressions_are_those_of_postgresql() {
    let dir = support::TempDir::new("expressions");
    let maps = |pattern: &str, user: &str| {
        let path = dir.path().join("maps");
        fs::write(&path, format!("m \"/{}\" {user}\n", pattern.replace('"', "\"\""))).unwrap();
        IdentMaps::load(Path::new(&path), &Disk)
    };
    let mut database = shared().connect();
    database
        .simple(
            "CREATE FUNCTION pg_temp.try(s text, p text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
             RETURN coalesce('=' || (regexp_match(s COLLATE \"C\", p COLLATE \"C\"))[1], 'no'); \
             EXCEPTION WHEN invalid_regular_expression THEN RETURN 'invalid'; END $$",
        )
        .unwrap();
    let mut random = Random::new(seed());
    let atoms = [
        "a",
        "b",
        "ab",
        ".",
        "[ab]",
        "[^a]",
        "\\d",
        "\\w",
        "\\W",
        "\\.",
        "(",
        ")",
        "(?:",
        "|",
        "^",
        "$",
        "*",
        "+",
        "?",
        "{2}",
        "{1,}",
        "{0,2}",
        "[[:alpha:]]",
        "[a-c_]",
        "\\@",
        "-",
        "_",
        "\\s",
        "[\\d-]",
        "[\\w.]",
        "\\\\",
    ];
    let subjects = ["", "a", "ab", "aab", "abab", "b", "bbb", "a.b", "A1", "a-1_", "c@b", " ", "aa\nb", "1\\2"];
    let (mut taken, mut caught, mut matched) = (0, 0, 0);
    for round in 0..3_000 {
        let inner: String = (0..1 + random.below(7)).map(|_| pick(&mut random, &atoms)).collect();
        // Half of them in the form in which \1 may be used.
        let pattern = if round % 2 == 0 { inner } else { format!("^({inner}){}$", pick(&mut random, &atoms)) };
        let Ok(all) = maps(&pattern, "all") else { continue };
        taken += 1;
        let capture = maps(&pattern, "\\1").ok();
        caught += usize::from(capture.is_some());
        let quoted = |text: &str| format!("E'{}'", text.replace('\\', "\\\\").replace('\n', "\\n").replace('\'', "''"));
        let calls: Vec<String> =
            subjects.iter().map(|s| format!("pg_temp.try({}, {})", quoted(s), quoted(&pattern))).collect();
        let row = database.simple(&format!("SELECT {}", calls.join(", "))).unwrap().remove(0);
        for (subject, said) in subjects.iter().zip(row) {
            let said = said.unwrap();
            assert_ne!(said, "invalid", "PostgreSQL does not take {pattern:?}");
            let matches = said != "no";
            matched += usize::from(matches);
            // A first group that takes no part gives NULL as well.
            if capture.is_some() || matches {
                assert_eq!(all.admits(Some("m"), subject, "x"), matches, "{pattern:?} {subject:?}: {said}");
            }
            if let (Some(capture), Some(text)) = (&capture, said.strip_prefix('=')) {
                assert!(capture.admits(Some("m"), subject, text), "{pattern:?} {subject:?}: {text:?}");
                assert!(!capture.admits(Some("m"), subject, &format!("{text}x")));
            }
        }
    }
    assert!(taken > 300 && caught > 100 && matched > 500, "{taken} taken, {caught} catch, {matched} matches");
}
