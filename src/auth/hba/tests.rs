//! Rules and maps: the examples of PostgreSQL's documentation, tables of what is refused, and any text.

use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;

use super::fuzz::Memory;
use super::pattern::Pattern;
use super::*;

fn files(list: &[(&str, &str)]) -> Memory {
    Memory(list.iter().map(|(name, text)| (name.into(), (*text).to_owned())).collect())
}

fn load(text: &str) -> Result<Rules, Vec<HbaError>> {
    Rules::load(Path::new("etc/hba"), &files(&[("etc/hba", text)]))
}

fn maps(text: &str) -> Result<IdentMaps, Vec<HbaError>> {
    IdentMaps::load(Path::new("ident"), &files(&[("ident", text)]))
}

fn shown(rules: &Rules) -> Vec<String> {
    rules.iter().map(|rule| format!("{} {rule}", rule.line)).collect()
}

fn none() -> io::Result<Vec<Network>> {
    Ok(Vec::new())
}

fn tcp(address: &str) -> Origin {
    Origin::Tcp { address: address.parse().unwrap(), tls: false }
}

fn login<'a>(origin: Origin, user: &'a str, database: &'a str) -> Login<'a> {
    Login { origin, user, database, replication: false }
}

/// Line of the rule that decides; 0: none.
fn decides(rules: &Rules, login: &Login<'_>) -> usize {
    rules.find(login, &none).unwrap().map_or(0, |rule| rule.line)
}

/// Example 21.1 of auth-pg-hba-conf (PostgreSQL 18), without what a pooler cannot know.
const DOCUMENTED: &str = r#"# Allow any user on the local system to connect to any database with
# any database user name using Unix-domain sockets (the default for local
# connections).
#
# TYPE  DATABASE        USER            ADDRESS                 METHOD
local   all             all                                     trust

# The same using local loopback TCP/IP connections.
host    all             all             127.0.0.1/32            trust

# The same as the previous line, but using a separate netmask column
host    all             all             127.0.0.1       255.255.255.255     trust

# The same over IPv6.
host    all             all             ::1/128                 trust

# The same using a regular expression for DATABASE, that allows connection
# to the database db1, db2 and any databases with a name beginning with "db"
# and finishing with a number using two to four digits (like "db1234" or
# "db12").
host    db1,"/^db\d{2,4}$",db2   all     ::1/128                 trust

# Allow any user from any host with IP address 192.168.93.x to connect
# to database "postgres" as the same user name that ident reports for
# the connection (typically the operating system user name).
host    postgres        all             192.168.93.0/24         md5

# Allow any user from host 192.168.12.10 to connect to database
# "postgres" if the user's password is correctly supplied.
host    postgres        all             192.168.12.10/32        scram-sha-256

# In the absence of preceding "host" lines, these three lines will
# reject all connections from 192.168.54.1, allow GSSAPI-encrypted ones from anywhere else, and so on.
host    all             all             192.168.54.1/32         reject
hostgssenc all          all             0.0.0.0/0               trust
host    all             all             192.168.12.10/32        scram-sha-256

# Allow only users that begin with "db" and finish by "helpdesk".
host    sameuser        "/^.*helpdesk$"  192.168.0.0/16          md5

# The same as above, with a list and files.
local   sameuser        all                                     md5
local   all             /^.*helpdesk$                           md5
local   all             @admins,bob                             md5
local   db1,db2,@demodbs  all                                   md5
"#;

#[test]
fn the_documented_example_is_read() {
    let source = files(&[
        ("etc/hba", DOCUMENTED),
        ("etc/admins", "alice\n\"the boss\" # not carol\n"),
        ("etc/demodbs", "demo1 demo2"),
    ]);
    let rules = Rules::load(Path::new("etc/hba"), &source).unwrap();
    assert_eq!(
        shown(&rules),
        [
            "6 local all all trust",
            "9 host all all 127.0.0.1 255.255.255.255 trust",
            "12 host all all 127.0.0.1 255.255.255.255 trust",
            "15 host all all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust",
            "21 host db1,/^db\\d{2,4}$,db2 all ::1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff trust",
            "26 host postgres all 192.168.93.0 255.255.255.0 md5",
            "30 host postgres all 192.168.12.10 255.255.255.255 scram-sha-256",
            "34 host all all 192.168.54.1 255.255.255.255 reject",
            "35 hostgssenc all all 0.0.0.0 0.0.0.0 trust",
            "36 host all all 192.168.12.10 255.255.255.255 scram-sha-256",
            "39 host sameuser /^.*helpdesk$ 192.168.0.0 255.255.0.0 md5",
            "42 local sameuser all md5",
            "43 local all /^.*helpdesk$ md5",
            "44 local all alice,the boss,bob md5",
            "45 local db1,db2,demo1,demo2 all md5",
        ]
    );
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = load(
        "host  app  bad          all           reject\n\
         host  app  all          10.0.0.0/8    scram-sha-256\n\
         host  all  all          10.1.0.0/16   md5\n\
         local app  all                        peer\n\
         host  sameuser all      10.0.0.0/8    trust\n\
         host  replication rep   all           md5\n\
         hostssl all all         all           password\n\
         hostnossl all /^nossl   all           trust\n\
         hostgssenc all all      all           trust\n\
         hostnogssenc all nogss  fd00::/8      trust\n\
         host  \"all\" \"all\"     all           reject\n\
         host  \"/^db\\d{2,4}$\" /^a|z$ all        md5\n",
    )
    .unwrap();
    for (origin, user, database, line) in [
        (tcp("10.1.2.3"), "bad", "app", 1),
        (tcp("10.1.2.3"), "app", "app", 2),
        (tcp("::ffff:10.1.2.3"), "app", "app", 2),
        (tcp("10.1.2.3"), "app", "other", 3),
        (tcp("10.2.2.3"), "app", "other", 0),
        (tcp("10.2.2.3"), "x", "x", 5),
        (tcp("10.2.2.3"), "X", "x", 0),
        (Origin::Local, "bad", "app", 4),
        (Origin::Local, "app", "other", 0),
        (tcp("8.8.8.8"), "rep", "replication", 0),
        (tcp("8.8.8.8"), "nossl7", "x", 8),
        (tcp("fd12::1"), "nogss", "x", 10),
        (tcp("fe80::1"), "nogss", "x", 0),
        (tcp("8.8.8.8"), "all", "all", 11),
        (tcp("8.8.8.8"), "abc", "db12", 12),
        (tcp("8.8.8.8"), "fizz", "db1234", 12),
        (tcp("8.8.8.8"), "fizz", "db12345", 0),
    ] {
        assert_eq!(decides(&rules, &login(origin, user, database)), line, "{origin:?} {user} {database}");
    }
    let replication = Login { replication: true, ..login(tcp("10.1.2.3"), "rep", "rep") };
    assert_eq!(decides(&rules, &replication), 6, "all and names are not for physical replication");
    assert_eq!(decides(&rules, &Login { user: "other", ..replication }), 0);
    let tls = Origin::Tcp { address: IpAddr::from([8, 8, 8, 8]), tls: true };
    assert_eq!(decides(&rules, &login(tls, "nossl7", "x")), 7);
}

#[test]
fn own_networks_are_asked_for_only_where_they_count() {
    let rules = load("host a all samehost trust\nhost b all samenet trust\nhost c all all trust\n").unwrap();
    let own = || Ok(vec![Network { address: "10.1.2.3".parse().unwrap(), mask: "255.255.0.0".parse().unwrap() }]);
    let find = |address: &str, database: &str| {
        rules.find(&login(tcp(address), "u", database), &own).unwrap().map_or(0, |rule| rule.line)
    };
    assert_eq!((find("10.1.2.3", "a"), find("10.1.2.4", "a")), (1, 0));
    assert_eq!((find("10.1.99.1", "b"), find("10.2.0.1", "b")), (2, 0));
    let broken = || Err(io::Error::other("no interfaces"));
    assert!(rules.find(&login(tcp("10.1.2.3"), "u", "a"), &broken).is_err(), "in doubt nobody is let in");
    assert!(rules.find(&login(tcp("10.1.2.3"), "u", "c"), &broken).is_ok());
}

#[test]
fn masks_count_bit_by_bit() {
    let rules = load("host all all 10.0.0.5 255.0.0.255 trust\nhost all all 1.2.3.4/0 md5\n").unwrap();
    assert_eq!(decides(&rules, &login(tcp("10.77.88.5"), "u", "d")), 1);
    assert_eq!(decides(&rules, &login(tcp("10.77.88.6"), "u", "d")), 2);
    assert_eq!(decides(&rules, &login(tcp("::1"), "u", "d")), 0, "0.0.0.0/0 is no IPv6 network");
}

#[test]
fn quotes_commas_comments_and_continuations() {
    for (text, expected) in [
        ("local \"all\" all trust", "local all all trust"),
        ("local \"a b\",\"c\"\"d\" \"#x\" trust # comment", "local a b,c\"d #x trust"),
        ("local a , b ,c all trust", ""), // a blank before the comma ends the field
        ("local a, b,,c all trust", "local a,b,c all trust"),
        ("\tlocal\tall\tall\ttrust\r", "local all all trust"),
        ("local a\"l\"l all trust", "local all all trust"),
        ("local \\\n  all \\\nall tru\\\nst", "local all all trust"),
        ("local all all trust \\", "local all all trust"),
        ("local a all trust #\\\\\n\nlocal b all trust", "local a all trust; local b all trust"),
        ("local all all trust # and \\\n host nothing", "local all all trust"),
        ("local all \"unterminated trust", ""),
        ("local @\"no such\" all trust", ""),
        ("local \"@name\" all trust", "local @name all trust"),
        ("local @ all trust", "local @ all trust"),
        ("local \"\" all trust", "local  all trust"),
    ] {
        let read = load(text);
        let read = read.as_ref().map(|rules| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        assert_eq!(read.as_deref().unwrap_or(""), expected, "{text:?}");
    }
    let keyword = load("local a\"l\"l all trust").unwrap();
    assert_eq!(decides(&keyword, &login(Origin::Local, "u", "d")), 1, "only a quote in front makes it a name");
    let name = load("local \"all\" all trust").unwrap();
    assert_eq!(decides(&name, &login(Origin::Local, "u", "d")), 0);
}

#[test]
fn errors_say_where_and_what_to_write() {
    for (text, place, message, help) in [
        ("# nothing\n", ":0:0", "no entries", ""),
        ("hots all all all md5", ":1:1", "invalid connection type \"hots\"", "did you mean host?"),
        ("local,host all all md5", ":1:1", "multiple values", "one on each line"),
        ("\n  include\n", ":2:3", "invalid connection type", "include FILE"),
        ("local", ":1:1", "end-of-line before database", "a line is: local DATABASE"),
        ("local all", ":1:7", "end-of-line before role", "a line is"),
        ("host all all", ":1:10", "end-of-line before IP address", ""),
        ("host all all 10.0.0.0/8", ":1:14", "end-of-line before authentication method", ""),
        ("host all all 10.0.0.0/8,10.1.0.0/16 md5", ":1:14", "multiple values specified for host address", ""),
        ("host all all 10.0.0.1 md5", ":1:23", "invalid IP mask \"md5\"", "10.0.0.1/32"),
        ("host all all 10.0.0.1 ffff:: md5", ":1:23", "IP address and mask do not match", ""),
        ("host all all 10.0.0.0/33 md5", ":1:14", "invalid CIDR mask", "from 0 to 32"),
        ("host all all ::/129 md5", ":1:14", "invalid CIDR mask", "from 0 to 128"),
        ("host all all 10.0.0.0/ md5", ":1:14", "invalid CIDR mask", ""),
        ("host all all 10.0.0.256/32 md5", ":1:14", "invalid IP address", "in full"),
        ("host all all db.example.com md5", ":1:14", "is a host name", "addresses"),
        ("host all all .example.com md5", ":1:14", "is a host name", "addresses"),
        ("host all all db.example.com/32 md5", ":1:14", "both host name and CIDR mask", "10.0.0.0/8"),
        ("host all all all scram", ":1:18", "invalid authentication method \"scram\"", "scram-sha-256"),
        ("host all all all ldap ldapserver=x ldapbindpasswd=hunter2", ":1:18", "pgsluice does not support it", "md5"),
        ("host all all all ident", ":1:18", "does not support it", ""),
        ("host all all all md5,trust", ":1:18", "multiple values specified for authentication type", ""),
        ("host all all all peer", ":1:18", "only supported on local sockets", ""),
        ("host all all all cert", ":1:18", "only supported on hostssl", ""),
        ("local all all md5 map=m", ":1:19", "only valid for peer and cert", "supported are map=NAME"),
        ("local all all peer map", ":1:20", "not in name=value format", "supported are"),
        ("local all all peer clientcert=verify-ca", ":1:20", "only be configured for \"hostssl\"", ""),
        ("hostssl all all all md5 clientcert=on", ":1:25", "invalid value for clientcert", "verify-full"),
        ("hostssl all all all cert clientcert=verify-ca", ":1:26", "can only be set to \"verify-full\"", ""),
        ("local all all md5 secret=hunter2", ":1:19", "unrecognized authentication option name: \"secret\"", ""),
        ("local samerole all md5", ":1:7", "which user belongs to which role", "name the databases"),
        ("local all +admins md5", ":1:11", "which user belongs to which role", "@users"),
        ("local all \\\n\\\n   +admins md5", ":3:4", "which user belongs", ""),
        ("local all /[ md5", ":1:11", "invalid regular expression", ""),
        ("local @gone all md5", ":1:7", "could not open file \"etc/gone\"", ""),
        ("include gone", ":1:9", "could not open file \"etc/gone\"", ""),
        ("include_dir gone", ":0:0", "no entries", ""),
        ("local a\0 all md5", ":1:1", "NUL", ""),
    ] {
        let errors = load(text).expect_err(text);
        let error = &errors[0];
        let said = error.to_string();
        assert_eq!(format!(":{}:{}", error.line, error.column), place, "{text:?}: {said}");
        assert!(error.message.contains(message), "{text:?}: {said}");
        assert!(error.help.clone().unwrap_or_default().contains(help), "{text:?}: {said}");
        assert!(said.starts_with("etc/hba:") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn all_errors_at_once_and_nothing_is_used() {
    let errors = load("local all all trust\nlocal all all nonsense\nhost all all all md5 x=y\n").unwrap_err();
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(load(&"nonsense\n".repeat(1000)).unwrap_err().len(), MAX_ERRORS);
}

#[test]
fn included_files() {
    let source = files(&[
        ("etc/hba", "include more/one\ninclude_if_exists gone\ninclude_dir more\nlocal last all trust\n"),
        ("etc/more/one", "local one @names md5\n"),
        ("etc/more/names", "b\n@inner\n"),
        ("etc/more/inner", "\"c d\",e"),
        ("etc/more/20.conf", "local twenty all trust"),
        ("etc/more/10.conf", "# first\nlocal ten all trust"),
        ("etc/more/.hidden.conf", "local hidden all trust"),
        ("etc/more/README", "read me"),
    ]);
    let rules = Rules::load(Path::new("etc/hba"), &source).unwrap();
    let shown: Vec<String> = rules.iter().map(|rule| format!("{}:{} {rule}", rule.file.display(), rule.line)).collect();
    assert_eq!(
        shown,
        [
            "etc/more/one:1 local one b,c d,e md5",
            "etc/more/10.conf:2 local ten all trust",
            "etc/more/20.conf:1 local twenty all trust",
            "etc/hba:4 local last all trust",
        ]
    );
}

#[test]
fn inclusion_ends() {
    for text in
        ["include hba\nlocal all all trust\n", "local @hba all trust\n", "include hba\ninclude hba\ninclude hba\n"]
    {
        let errors = load(text).unwrap_err();
        let said = errors[0].to_string();
        assert!(said.contains("maximum nesting depth exceeded"), "{said}");
    }
    // Ten levels of nine files would be more than three billion.
    let nine = "include_if_exists a\n".repeat(9);
    let mut list = vec![("0".to_owned(), nine.replace('a', "1"))];
    list.extend((1..10).map(|level| (level.to_string(), nine.replace('a', &(level + 1).to_string()))));
    let list: Vec<(&str, &str)> = list.iter().map(|(name, text)| (&**name, &**text)).collect();
    let errors = Rules::load(Path::new("0"), &files(&list)).unwrap_err();
    assert!(errors[0].message.contains("files are included") || errors[0].message.contains("depth"), "{}", errors[0]);
    let many = "x ".repeat(100_001);
    let errors = Rules::load(Path::new("0"), &files(&[("0", "local @1 all trust"), ("1", &many)])).unwrap_err();
    assert!(errors[0].message.contains("more than 100000 entries"), "{}", errors[0]);
    assert!(load(&format!("local {} all trust", "x".repeat(10_240))).is_ok());
    assert!(load(&format!("local {} all trust", "x".repeat(10_241))).unwrap_err()[0].message.contains("too long"));
}

/// Example 20.2 of auth-username-maps, and PostgreSQL 16's additions.
#[test]
fn maps_of_user_names() {
    let maps = maps(
        "# MAPNAME       SYSTEM-USERNAME         PG-USERNAME\n\n\
         omicron         bryanh                  bryanh\n\
         omicron         ann                     ann\n\
         # bob has user name robert on these machines\n\
         omicron         robert                  bob\n\
         # bryanh can also connect as guest1\n\
         omicron         bryanh                  guest1\n\
         mymap   /^(.*)@mydomain\\.com$      \\1\n\
         mymap   /^(.*)@otherdomain\\.com$   guest\n\
         new     root    all\n\
         new     /^dba   /^app_\n\
         new     quoted  \"all\"\n\
         sub     /^(.+)$ app_\\1_x\n",
    )
    .unwrap();
    for (map, system, user, admitted) in [
        (Some("omicron"), "bryanh", "bryanh", true),
        (Some("omicron"), "bryanh", "guest1", true),
        (Some("omicron"), "robert", "bob", true),
        (Some("omicron"), "robert", "robert", false),
        (Some("omicron"), "ann", "bryanh", false),
        (Some("mymap"), "ann@mydomain.com", "ann", true),
        (Some("mymap"), "ann@mydomain.com", "bob", false),
        (Some("mymap"), "ann@mydomainxcom", "ann", false),
        (Some("mymap"), "ann@otherdomain.com", "guest", true),
        (Some("new"), "root", "anybody", true),
        (Some("new"), "dba7", "app_x", true),
        (Some("new"), "dba7", "postgres", false),
        (Some("new"), "quoted", "anybody", false),
        (Some("new"), "quoted", "all", true),
        (Some("sub"), "me", "app_me_x", true),
        (Some("sub"), "me", "app_x", false),
        (Some("gone"), "root", "root", false),
        (Some(""), "root", "root", true),
        (None, "root", "root", true),
        (None, "root", "app", false),
    ] {
        assert_eq!(maps.admits(map, system, user), admitted, "{map:?} {system} {user}");
    }
    assert!(maps.has("new") && !maps.has("gone"));
}

#[test]
fn maps_that_are_refused() {
    for (text, message) in [
        ("m a", "missing entry"),
        ("m a,b c", "multiple values"),
        ("m a +role", "role"),
        ("m /( \\1", "invalid regular expression"),
        ("m /^(.*)$ \"\\1\"", "without quotes"),
        ("m /^(.*)$ \\1\\1", "once"),
        ("m /^(.*)$ +\\1", "members"),
        ("m /^.*$ \\1", "no parentheses"),
        ("m /(.*) \\1", "begin with ^"),
        ("m /^(a|ab)(b?)$ \\1", "its first parentheses"),
        ("m /^(a)|(b)$ \\1", "outside of parentheses"),
        ("m /^((a)b)$ \\1", "its first parentheses"),
        ("m /^(a)*$ \\1", "its first parentheses"),
        ("m /^(?:a)(b)$ \\1", "its first parentheses"),
    ] {
        let said = maps(text).expect_err(text)[0].to_string();
        assert!(said.contains(message), "{text}: {said}");
    }
}

#[test]
fn expressions_that_may_mean_something_else_are_refused() {
    for text in [
        "",
        "a\\",
        "\\B",
        "\\b",
        "\\y",
        "\\mx",
        "\\1",
        "\\x41",
        "\\<",
        "(?=a)",
        "(?i)a",
        "(?<n>a)",
        "a*?",
        "a**",
        "a{,3}",
        "a{256}",
        "a{2,1}",
        "a{x}",
        "*a",
        "^*",
        "(|*a)",
        "(a",
        "a)",
        "[a",
        "[]",
        "[]a]",
        "[[.a.]]",
        "[[=a=]]",
        "[[:word:]]",
        "[a&&b]",
        "[a--b]",
        "[\\D]",
        "a]",
        "a}",
        "\u{e9}",
        "[\u{e9}]",
        "***=a",
        "[z-a]",
    ] {
        assert!(Pattern::new(text).is_err(), "{text:?}");
    }
    assert!(Pattern::new(&"a".repeat(1025)).is_err());
    assert!(Pattern::new(&"(a{255}){255}".repeat(50)).is_err(), "too large when compiled");
}

#[test]
fn expressions_are_found_anywhere_and_dots_match_all() {
    for (text, subject, matches) in [
        ("b", "abc", true),
        ("^b", "abc", false),
        ("^a.c$", "a\nc", true),
        ("^a$", "a\n", false),
        ("^[[:alpha:]_][[:alnum:]_]*$", "app_1", true),
        ("^\\w+\\.\\d{2,4}$", "x.123", true),
        ("^(?:a|b)+$", "abba", true),
        ("^[^@]+@x$", "me@x", true),
        ("^\\w$", "\u{e9}", false),
        ("A", "a", false),
    ] {
        assert_eq!(Pattern::new(text).unwrap().is_match(subject), matches, "{text} {subject:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ \\t\\n\\r\\\\\",#@/+=a-z0-9.:\\x00]{0,80}") {
        fuzz_hba(text.as_bytes());
    }

    #[test]
    fn anything_like_a_rule_is_read_or_refused(words in prop::collection::vec(prop::sample::select(vec![
        "local", "host", "hostssl", "all", "app", "\"all\"", "sameuser", "replication", "/^a", "10.0.0.0/8", "10.0.0.1",
        "255.0.0.0", "::/0", "samenet", "trust", "md5", "peer", "reject", "map=m", "m", "\\1", "/^(.*)$", "\n", "\\\n", ",",
        "@b.conf", "include b.conf\n", "include_dir .\n", "include_if_exists x\n", "\0", "#",
    ]), 0..40)) {
        fuzz_hba(words.join(" ").as_bytes());
    }

    #[test]
    fn any_expression_is_read_or_refused(text in "[\\[\\]()|*+?{}^$.,0-9a-c\\\\:&~-]{0,30}", subject in "[a-c]{0,10}") {
        if let Ok(pattern) = Pattern::new(&text) {
            let matched = pattern.is_match(&subject);
            if pattern.capture().is_ok() {
                prop_assert_eq!(pattern.first_group(&subject).is_some(), matched);
            }
        }
    }

    /// What is quoted is that name, whatever it is.
    #[test]
    fn a_quoted_name_is_itself(name in "[^\\n\\r\\x00/\\\\][^\\n\\r\\x00\\\\]{0,20}") {
        let rules = load(&format!("local \"{0}\" \"{0}\" trust", name.replace('"', "\"\""))).unwrap();
        prop_assert_eq!(decides(&rules, &login(Origin::Local, &name, &name)), 1);
        prop_assert_eq!(decides(&rules, &login(Origin::Local, &name, "another")), 0);
    }
}
