//! What is not a login is refused as PostgreSQL refuses it: the same bytes are sent to a server itself and to the pooler, both
//! with the same rules, and error, SQLSTATE and message must be the same.

#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac, pbkdf2};
use rustls::ClientConfig;
use support::cluster::{self, Cluster, DATABASE, PASSWORD};
use support::pki::{Ca, Pair, client_config};
use support::pooler::{Pooler, Setup};
use support::{TempDir, raw, skip};

const HBA: &str = "\
host all postgres all trust
host all md5user all md5
host all plainuser all password
host all rejected all reject
host all app all scram-sha-256
host all unknown all scram-sha-256
";

/// PostgreSQL and a pooler before it, with TLS and one certificate.
struct Both {
    cluster: Cluster,
    pooler: Pooler,
    config: Arc<ClientConfig>,
    pair: Pair,
    _dir: TempDir,
    _ca: Ca,
    different: RefCell<Vec<String>>,
}

fn both() -> Option<Both> {
    if !cluster::shared().has_tls() {
        skip("this PostgreSQL was built without TLS");
        return None;
    }
    let (ca, dir) = (Ca::new(), TempDir::new("hba"));
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = dir.path().join("pg_hba.conf");
    fs::write(&file, format!("local all postgres trust\n{HBA}")).unwrap();
    let pair = ca.server(&["localhost"]);
    let options: Vec<String> = pair.options().into_iter().chain([format!("hba_file={}", file.display())]).collect();
    let cluster = Cluster::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let mut toml = format!(
        "auth_type = \"hba\"\nauth_hba_file = \"{}\"\nfailed_login_delay = 0\nclient_tls_cert_file = \"{}\"\nclient_tls_key_file = \"{}\"\n",
        file.display(),
        pair.cert.display(),
        pair.key.display()
    );
    toml.push_str(&format!("[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n", cluster.port()));
    for user in ["app", "md5user", "plainuser", "rejected"] {
        toml.push_str(&format!("[users.{user}]\npassword = \"{PASSWORD}\"\n"));
    }
    let config = client_config(Some(&ca.file()), None, &[b"postgresql"]);
    Some(Both {
        pooler: Setup::toml(&toml).start(),
        cluster,
        config,
        pair,
        _dir: dir,
        _ca: ca,
        different: RefCell::default(),
    })
}

/// SQLSTATE and message; `None`: the connection ended without a word.
type Refused = Option<(String, String)>;

impl Both {
    /// Plays one way of logging in to both; the pooler must answer as PostgreSQL does, which must refuse.
    fn same(&self, what: &str, tls: bool, play: impl Fn(&mut raw::Client) -> Result<(), Refused>) -> Refused {
        let mut refused = [self.cluster.address(), self.pooler.address()].map(|address: SocketAddr| {
            let mut client = match tls {
                true => raw::Client::connect_tls(address, &self.config, "localhost").unwrap(),
                false => raw::Client::connect(address).unwrap(),
            };
            play(&mut client).err()
        });
        let [direct, pooled] = &mut refused;
        assert!(direct.is_some(), "{what}: PostgreSQL itself takes it");
        if pooled != direct {
            self.different.borrow_mut().push(format!("{what}\n    PostgreSQL: {direct:?}\n    pgsluice: {pooled:?}"));
        }
        direct.take().unwrap()
    }

    fn finish(self) {
        let different = self.different.borrow();
        assert!(different.is_empty(), "{}\n{}", different.join("\n"), self.pooler.log());
    }
}

fn ended<T>(_: T) -> Refused {
    None
}

fn begin(client: &mut raw::Client, user: &str) -> Result<raw::Message, Refused> {
    client.send_startup(&[("user", user), ("database", DATABASE)]).map_err(ended)?;
    next(client)
}

/// The next request for proof; AuthenticationOk too.
fn next(client: &mut raw::Client) -> Result<raw::Message, Refused> {
    let message = client.read().map_err(ended)?;
    match message.tag {
        b'E' => Err(Some((message.field(b'C').unwrap(), message.field(b'M').unwrap()))),
        _ => Ok(message),
    }
}

fn answer(client: &mut raw::Client, body: &[u8]) -> Result<raw::Message, Refused> {
    client.send_frame(b'p', body).map_err(ended)?;
    next(client)
}

fn initial(mechanism: &str, data: &str) -> Vec<u8> {
    [&raw::c_string(mechanism)[..], &(data.len() as u32).to_be_bytes(), data.as_bytes()].concat()
}

/// `tls-server-end-point` of a certificate signed with SHA-256.
fn end_point(pair: &Pair) -> Vec<u8> {
    digest::digest(&digest::SHA256, &pair.der()).as_ref().to_vec()
}

/// One SCRAM login, each part of which can be made wrong.
#[derive(Clone)]
struct Scram {
    mechanism: &'static str,
    gs2: &'static str,
    bare: &'static str,
    /// What it is bound to.
    bound: Vec<u8>,
    password: &'static str,
    /// Changes the last message.
    change: fn(String) -> String,
}

impl Scram {
    fn plain() -> Scram {
        Scram {
            mechanism: "SCRAM-SHA-256",
            gs2: "n,,",
            bare: "n=,r=rOprNGfwEbeRWgbNEkqO",
            bound: Vec::new(),
            password: PASSWORD,
            change: |last| last,
        }
    }

    fn plus(pair: &Pair) -> Scram {
        Scram {
            mechanism: "SCRAM-SHA-256-PLUS",
            gs2: "p=tls-server-end-point,,",
            bound: end_point(pair),
            ..Scram::plain()
        }
    }

    fn first(&self) -> Vec<u8> {
        initial(self.mechanism, &format!("{}{}", self.gs2, self.bare))
    }

    fn last(&self, challenge: &str) -> String {
        let part = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap();
        let mut salted = [0; 32];
        let rounds = part("i=").parse().unwrap();
        let salt = STANDARD.decode(part("s=")).unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.password.as_bytes(), &mut salted);
        let sign =
            |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec();
        let client_key = sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, &client_key);
        let binding = STANDARD.encode([self.gs2.as_bytes(), &self.bound].concat());
        let last = format!("c={binding},r={}", part("r="));
        let signature = sign(stored.as_ref(), format!("{},{challenge},{last}", self.bare).as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, bit)| key ^ bit).collect();
        (self.change)(format!("{last},p={}", STANDARD.encode(proof)))
    }

    fn play(&self, client: &mut raw::Client, user: &str) -> Result<(), Refused> {
        begin(client, user)?;
        let challenge = answer(client, &self.first())?;
        let challenge = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
        answer(client, self.last(&challenge).as_bytes()).map(drop)
    }
}

fn code(refused: &Refused) -> &str {
    refused.as_ref().map_or("", |(code, _)| code)
}

#[test]
fn what_is_right_is_taken() {
    let Some(both) = both() else { return };
    for address in [both.cluster.address(), both.pooler.address()] {
        let connect = || raw::Client::connect_tls(address, &both.config, "localhost").unwrap();
        Scram::plain().play(&mut connect(), "app").unwrap();
        Scram::plus(&both.pair).play(&mut connect(), "app").unwrap();
        // Libpq's without an initial response; no other user's name counts in the message.
        let mut client = connect();
        begin(&mut client, "app").unwrap();
        let empty = [&raw::c_string("SCRAM-SHA-256")[..], &[0xff; 4]].concat();
        answer(&mut client, &empty).unwrap();
        let scram = Scram { bare: "n=other,r=abcdefgh", ..Scram::plain() };
        let challenge = answer(&mut client, format!("{}{}", scram.gs2, scram.bare).as_bytes()).unwrap();
        let challenge = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
        assert_eq!(answer(&mut client, scram.last(&challenge).as_bytes()).unwrap().body[3], 12);
    }
}

#[test]
fn wrong_secrets() {
    let Some(both) = both() else { return };
    let given = |user: &'static str, body: &'static [u8]| {
        move |client: &mut raw::Client| begin(client, user).and_then(|_| answer(client, body).map(drop))
    };
    for tls in [false, true] {
        for user in ["md5user", "plainuser"] {
            assert_eq!(code(&both.same("wrong", tls, given(user, b"wrong\0"))), "28P01", "{user}");
            both.same("empty", tls, given(user, b"\0"));
            both.same("no end", tls, given(user, b"wrong"));
            both.same("two", tls, given(user, b"secret\0secret\0"));
        }
        both.same("reject", tls, |client| begin(client, "rejected").map(drop));
        both.same("no rule", tls, |client| begin(client, "stranger").map(drop));
        both.same("the same in SCRAM", tls, given("app", b"secret\0"));
    }
    let wrong = Scram { password: "wrong", ..Scram::plain() };
    for user in ["app", "unknown"] {
        assert_eq!(code(&both.same("wrong", false, |c| wrong.play(c, user))), "28P01", "{user}");
        let wrong = Scram { password: "wrong", ..Scram::plus(&both.pair) };
        assert_eq!(code(&both.same("wrong, bound", true, |c| wrong.play(c, user))), "28P01", "{user}");
    }
    both.finish();
}

#[test]
fn downgrades_and_bindings_that_do_not_fit() {
    let Some(both) = both() else { return };
    let plus = || Scram::plus(&both.pair);
    let cases: Vec<(&str, bool, Scram)> = vec![
        ("PLUS without TLS", false, plus()),
        ("an unknown mechanism", true, Scram { mechanism: "SCRAM-SHA-1", ..Scram::plain() }),
        ("the offer was stripped", true, Scram { gs2: "y,,", ..Scram::plain() }),
        ("PLUS that is not bound", true, Scram { gs2: "n,,", bound: vec![], ..plus() }),
        ("PLUS that believes in no offer", true, Scram { gs2: "y,,", bound: vec![], ..plus() }),
        ("bound without PLUS", true, Scram { mechanism: "SCRAM-SHA-256", ..plus() }),
        ("bound without TLS", false, Scram { mechanism: "SCRAM-SHA-256", ..plus() }),
        ("another type", true, Scram { gs2: "p=tls-unique,,", ..plus() }),
        ("another certificate", true, Scram { bound: vec![7; 32], ..plus() }),
        ("half of the hash", true, Scram { bound: end_point(&both.pair)[..16].to_vec(), ..plus() }),
        ("no hash", true, Scram { bound: vec![], ..plus() }),
        ("a hash where there should be none", true, Scram { bound: vec![7; 32], ..Scram::plain() }),
        (
            "another flag at the end",
            true,
            Scram { change: |last| last.replacen("c=biws", "c=eSws", 1), ..Scram::plain() },
        ),
    ];
    for (what, tls, scram) in cases {
        let refused = both.same(what, tls, |client| scram.play(client, "app"));
        assert!(refused.is_none() || refused.as_ref().unwrap().1.is_ascii(), "{what}");
    }
    both.finish();
}

#[test]
fn messages_that_are_malformed() {
    let Some(both) = both() else { return };
    let first = |gs2: &'static str, bare: &'static str| Scram { gs2, bare, ..Scram::plain() };
    let last = |change: fn(String) -> String| Scram { change, ..Scram::plain() };
    let cases = [
        ("another user", first("n,a=other,", "n=,r=abcdef")),
        ("an extension", first("n,,", "m=x,n=,r=abcdef")),
        ("no nonce", first("n,,", "n=,x=abcdef")),
        ("a nonce that cannot be printed", first("n,,", "n=,r=a\u{1}b")),
        ("no flag", first("x,,", "n=,r=abcdef")),
        ("nothing", first("", "")),
        ("cut", first("n", "")),
        ("no proof", last(|last| last.split_once(",p=").unwrap().0.to_owned())),
        ("a short proof", last(|last| format!("{},p=AAAA", last.split_once(",p=").unwrap().0))),
        ("a proof that is no base64", last(|last| format!("{},p=!!!!", last.split_once(",p=").unwrap().0))),
        ("words behind the proof", last(|last| format!("{last},x=y"))),
        ("an unknown attribute before it", last(|last| last.replacen(",p=", ",x=y,p=", 1))),
        ("another order", last(|last| last.replacen("c=biws,", "", 1))),
        ("a NUL", last(|last| last.replacen(",r=", ",r=\0", 1))),
        ("another nonce", last(|last| last.replacen(",r=", ",r=x", 1))),
    ];
    for (what, scram) in cases {
        both.same(what, true, |client| scram.play(client, "app"));
    }
    for (what, body) in [
        ("no mechanism", vec![]),
        ("no length", raw::c_string("SCRAM-SHA-256")),
        ("a length that is too large", [&raw::c_string("SCRAM-SHA-256")[..], &[0, 0, 1, 0], b"n,,n=,r=abc"].concat()),
        ("bytes behind it", [&initial("SCRAM-SHA-256", "n,,n=,r=abc")[..], b"more"].concat()),
    ] {
        both.same(what, true, |client| begin(client, "app").and_then(|_| answer(client, &body).map(drop)));
    }
    both.same("another message", true, |client| {
        begin(client, "app")?;
        client.send(&raw::query("SELECT 1")).map_err(ended)?;
        next(client).map(drop)
    });
    both.finish();
}

#[test]
fn replayed_and_reordered_messages() {
    let Some(both) = both() else { return };
    let scram = Scram::plain();
    // What one login sent, sent again in the next.
    let replayed = both.same("replay", true, |client| {
        begin(client, "app")?;
        let challenge = answer(client, &scram.first())?;
        let old = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
        let old = old.replacen("r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqOANOTHERLOGINSNONCE", 1);
        answer(client, scram.last(&old).as_bytes()).map(drop)
    });
    assert_eq!(code(&replayed), "08P01");
    both.same("the last first", true, |client| {
        begin(client, "app")?;
        let last = scram.last("r=rOprNGfwEbeRWgbNEkqOabc,s=c2FsdHNhbHRzYWx0,i=4096");
        answer(client, last.as_bytes()).map(drop)
    });
    both.same("the last first, as an initial one", true, |client| {
        begin(client, "app")?;
        let last = scram.last("r=rOprNGfwEbeRWgbNEkqOabc,s=c2FsdHNhbHRzYWx0,i=4096");
        answer(client, &initial("SCRAM-SHA-256", &last)).map(drop)
    });
    both.same("the first twice", true, |client| {
        begin(client, "app")?;
        answer(client, &scram.first())?;
        answer(client, b"n,,n=,r=rOprNGfwEbeRWgbNEkqO").map(drop)
    });
    both.same("the initial one twice", true, |client| {
        begin(client, "app")?;
        answer(client, &scram.first())?;
        answer(client, &scram.first()).map(drop)
    });
    // A challenge of before with the password that belongs to it: the server's nonce is another one now.
    both.same("the nonce alone", true, |client| {
        begin(client, "app")?;
        answer(client, &scram.first())?;
        answer(client, b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").map(drop)
    });
    both.finish();
}

#[test]
fn iterations_are_what_is_set() {
    for (setting, expected) in [(None, "4096"), (Some("256"), "256"), (Some("1"), "1")] {
        let setup = Setup::url(cluster::shared(), "app");
        let pooler = setting.map_or(setup.clone(), |n| setup.env("PGSLUICE_SCRAM_ITERATIONS", n)).start();
        // A user who does not exist looks alike.
        for user in ["app", "unknown"] {
            let mut client = raw::Client::connect(pooler.address()).unwrap();
            begin(&mut client, user).unwrap();
            let challenge = answer(&mut client, &Scram::plain().first()).unwrap();
            let challenge = String::from_utf8(challenge.body[4..].to_vec()).unwrap();
            assert!(challenge.ends_with(&format!(",i={expected}")), "{user}: {challenge}");
        }
        assert_eq!(pooler.client("app").value("SELECT 1"), "1");
    }
}
