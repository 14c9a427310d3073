//! By which way the runner reaches others, and whom it trusts: proxies when the operator wants them, and certificates
//! besides the system's.

use std::fs;

use serde_json::json;
use support::forward_proxy::Passed;
use support::tls::{Authority, Front};
use support::{ApiServer, Claude, Collector, ForwardProxy, RunnerProcess, Turn};

use support::scene::Scene;

/// User and password of the proxy, as they stand in a URL, and what comes of them.
const CREDENTIALS: &str = "operators-user:hunter2%2Fhunter2";
const AUTHORIZATION: &str = "Basic b3BlcmF0b3JzLXVzZXI6aHVudGVyMi9odW50ZXIy";

fn passed(method: &str, to: &str) -> Passed {
    Passed {
        method: method.to_owned(),
        to: to.to_owned(),
    }
}

/// A server, with its address replaced by a name that only the proxy knows.
fn named(url: &str, address: &str, name: &str) -> String {
    url.replace(address, name)
}

/// An agent's scene whose servers can only be reached by a proxy that asks for a password.
struct Behind {
    scene: Scene,
    collector: Collector,
    proxy: ForwardProxy,
    _fronts: [Front; 3],
}

impl Behind {
    /// `https`: with TLS by an authority whose certificate is in a file.
    async fn new(https: bool) -> Self {
        let collector = Collector::start().await.unwrap();
        let model = Claude::script([
            Turn::new().call("t1", "shell", json!({ "command": "env" })),
            Turn::says("Done."),
        ])
        .await
        .unwrap();
        let scene = Scene::new().await;
        let addresses = [scene.api.address(), model.address(), collector.address()];
        let authority = Authority::default();
        let mut fronts = Vec::new();
        for (address, name) in addresses.iter().zip(["api.test", "model.test", "collector.test"]) {
            fronts.push(authority.before(*address, name).await.unwrap());
        }
        let [api_front, model_front, collector_front] = [0, 1, 2].map(|index: usize| fronts[index].address());
        let names = match https {
            false => [
                ("api.test:80", addresses[0]),
                ("model.test:80", addresses[1]),
                ("collector.test:80", addresses[2]),
            ],
            true => [
                ("api.test:443", api_front),
                ("model.test:443", model_front),
                ("collector.test:443", collector_front),
            ],
        };
        let proxy = ForwardProxy::start(&names, Some(AUTHORIZATION)).await.unwrap();
        let scheme = if https { "https" } else { "http" };
        let url = |url: &str, index: usize, name: &str| {
            named(url, &addresses[index].to_string(), name).replace("http:", &format!("{scheme}:"))
        };
        let (callback, base) = (url(&scene.api.url(), 0, "api.test"), url(&model.url(), 1, "model.test"));
        let endpoint = url(&collector.url(), 2, "collector.test");
        let ca = scene.outside().join("ca.pem");
        fs::write(&ca, authority.pem()).unwrap();
        let by = format!("http://{CREDENTIALS}@{}", proxy.address());
        let (own, other) = if https {
            ("HTTPS_PROXY", "HTTP_PROXY")
        } else {
            ("http_proxy", "https_proxy")
        };
        let scene = scene
            .agent_with(json!({ "tools": ["shell"] }), model)
            .env("CALLBACK_URL", &callback)
            .env("ANTHROPIC_BASE_URL", &base)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("EXTRA_CA_CERTS", &ca.to_string_lossy())
            .env("USE_PROXY", "1")
            .env(own, &by)
            // Nobody is there: what goes this way arrives nowhere.
            .env(other, "http://127.0.0.1:9");
        Self {
            scene,
            collector,
            proxy,
            _fronts: fronts.try_into().ok().unwrap(),
        }
    }
}

#[tokio::test]
async fn model_callback_and_collector_are_reached_by_the_proxy_with_its_password_which_nobody_is_told() {
    for https in [false, true] {
        let behind = Behind::new(https).await;
        let outcome = behind.scene.run().await;
        outcome.done();
        let (method, port) = if https { ("CONNECT", 443) } else { ("POST", 80) };
        let passes = behind.proxy.passed();
        for name in ["api.test", "model.test", "collector.test"] {
            let expected = passed(method, &format!("{name}:{port}"));
            assert!(passes.contains(&expected), "{expected:?} in {passes:?}");
        }
        assert!(!behind.collector.received().spans.is_empty());
        let command = outcome.events_of("tool_end")[0]["output"].to_string();
        assert!(!command.to_ascii_lowercase().contains("proxy"), "{command}");
        let mut told = format!("{:?}{}", outcome.events(), outcome.finished.stdout);
        told += &outcome.request(1).to_string();
        for secret in ["hunter2", "operators-user"] {
            assert!(!told.contains(secret), "{secret} in {told}");
        }
    }
}

#[tokio::test]
async fn a_proxy_may_itself_be_reached_by_tls() {
    let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
    let address = scene.api.address();
    let proxy = ForwardProxy::start(&[("api.test:80", address)], Some(AUTHORIZATION)).await;
    let proxy = proxy.unwrap();
    let authority = Authority::default();
    let front = authority.before(proxy.address(), "localhost").await.unwrap();
    let ca = scene.outside().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    // The password is best in a file.
    let secrets = scene.outside().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let by = format!("https://{CREDENTIALS}@localhost:{}\n", front.address().port());
    fs::write(secrets.join("PROXY"), by).unwrap();
    let url = named(&scene.api.url(), &address.to_string(), "api.test");
    let scene = scene
        .env("CALLBACK_URL", &url)
        .env("EXTRA_CA_CERTS", &ca.to_string_lossy())
        .env("USE_PROXY", "1")
        .env("HTTP_PROXY_FILE", &secrets.join("PROXY").to_string_lossy());
    let outcome = scene.run().await;
    outcome.done();
    assert!(proxy.passed().contains(&passed("POST", "api.test:80")));
}

#[tokio::test]
async fn without_use_proxy_and_for_what_no_proxy_names_no_proxy_is_asked() {
    let proxy = ForwardProxy::start(&[], None).await.unwrap();
    let url = format!("http://{}", proxy.address());
    for (use_proxy, except) in [("0", ""), ("1", "example.com, 127.0.0.0/8"), ("1", "*")] {
        let scene = Scene::new().await.agent(json!({}), [Turn::says("Done.")]).await;
        let outcome = scene
            .env("USE_PROXY", use_proxy)
            .env("HTTP_PROXY", &url)
            .env("http_proxy", &url)
            .env("NO_PROXY", except)
            .run()
            .await;
        outcome.done();
        assert_eq!(proxy.passed(), [], "{use_proxy} {except}");
    }
}

#[tokio::test]
async fn a_server_of_an_authority_that_nobody_has_named_is_not_trusted() {
    let authority = Authority::default();
    let other = Authority::default();
    let collector = Collector::start().await.unwrap();
    for trusted in [true, false] {
        let scene = Scene::new().await.agent(json!({}), [Turn::says("Done.")]).await;
        let model = scene.model.as_ref().unwrap();
        let front = authority.before(model.address(), "localhost").await.unwrap();
        let callback = authority.before(scene.api.address(), "localhost").await.unwrap();
        let traces = authority.before(collector.address(), "localhost").await.unwrap();
        let (base, port) = (
            format!("https://localhost:{}", front.address().port()),
            callback.address().port(),
        );
        let ca = scene.outside().join("ca.pem");
        // What stands around the certificates does not count.
        let named = if trusted { &authority } else { &other };
        fs::write(&ca, format!("# of the company\n{}{}", other.pem(), named.pem())).unwrap();
        let url = named_callback(&scene, trusted, port);
        let scene = scene
            .env("CALLBACK_URL", &url)
            .env("ANTHROPIC_BASE_URL", &base)
            .env(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &format!("https://localhost:{}/otlp", traces.address().port()),
            )
            .env("EXTRA_CA_CERTS", &ca.to_string_lossy());
        let outcome = scene.run().await;
        if trusted {
            outcome.done();
            assert!(!collector.received().spans.is_empty());
            continue;
        }
        let error = outcome.failed("model_error");
        assert!(error["message"].as_str().unwrap().contains("certificate"), "{error}");
        assert_eq!(outcome.model().requests().len(), 0);
        // Nor is the callback.
        let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
        let front = authority.before(scene.api.address(), "localhost").await.unwrap();
        let ca = scene.outside().join("ca.pem");
        fs::write(&ca, other.pem()).unwrap();
        let url = named_callback(&scene, true, front.address().port());
        let scene = scene
            .env("CALLBACK_URL", &url)
            .env("EXTRA_CA_CERTS", &ca.to_string_lossy())
            .env("FLUSH_TIMEOUT", "1");
        let running = scene.start();
        let (finished, api) = scene.finish_unchecked(running).await;
        assert_eq!((finished.code, api.attempts().len()), (3, 0), "{}", finished.stdout);
    }
}

/// The callback with TLS where it is trusted, and without where its events are to arrive all the same.
fn named_callback(scene: &Scene, trusted: bool, port: u16) -> String {
    let url = scene.api.url();
    match trusted {
        true => url
            .replace(&scene.api.address().to_string(), &format!("localhost:{port}"))
            .replace("http:", "https:"),
        false => url,
    }
}

#[tokio::test]
async fn proxies_and_certificates_that_cannot_be_used_are_named_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (empty, garbage) = (file("empty", ""), file("garbage", "hunter2-is-no-certificate"));
    let missing = folder.path().join("missing").to_string_lossy().into_owned();
    let here = folder.path().to_string_lossy().into_owned();
    let cases = [
        ("USE_PROXY", "yes", "HTTPS_PROXY", "p:1", "neither 1 nor 0"),
        ("USE_PROXY", "1", "X", "", "neither HTTPS_PROXY nor HTTP_PROXY"),
        (
            "HTTPS_PROXY",
            "socks5://u:hunter2@p",
            "USE_PROXY",
            "1",
            "http and https",
        ),
        ("https_proxy", "http://u:hunter2@:1", "USE_PROXY", "1", "no URL"),
        ("HTTP_PROXY", "http://u:hunter2@p:port", "USE_PROXY", "1", "no URL"),
        ("no_proxy", "a:8080", "USE_PROXY", "1", "has a port"),
        ("EXTRA_CA_CERTS", &missing, "X", "", "cannot be read"),
        ("EXTRA_CA_CERTS", &empty, "X", "", "is empty"),
        ("EXTRA_CA_CERTS", &garbage, "X", "", "no certificate in PEM form"),
        ("EXTRA_CA_CERTS", &here, "X", "", "is a folder"),
    ];
    for (name, value, other, other_value, problem) in cases {
        let scene = Scene::new().await.workflow(&json!([{ "run": "true" }]));
        // For those that say nothing of a proxy themselves.
        let scene = match name {
            "no_proxy" => scene.env("HTTP_PROXY", "p:1"),
            _ => scene,
        };
        let scene = scene.env(other, other_value).env(name, value);
        let running = scene.start();
        let (finished, api) = scene.finish_unchecked(running).await;
        assert_eq!(finished.code, 2, "{}", finished.stdout);
        let said = finished.log[0]["error"].as_str().unwrap();
        assert!(
            said.starts_with(&format!("{name}: ")) && said.contains(problem),
            "{said}"
        );
        assert!(!finished.stdout.contains("hunter2"), "{}", finished.stdout);
        // Nobody is told by a way that the operator may not mean; whom to trust is no question of the way.
        let told = api.events();
        assert_eq!(told.len(), usize::from(name == "EXTRA_CA_CERTS"), "{name}: {told:?}");
        assert!(
            told.iter().all(|event| !event.to_string().contains("hunter2")),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn doctor_names_the_way_to_each_server_and_no_password() {
    let api = ApiServer::start().await.unwrap();
    let proxy = ForwardProxy::start(&[("model.test:80", api.address())], Some(AUTHORIZATION))
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::default();
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let doctor = |json: bool| {
        RunnerProcess::built()
            .args(if json { &["doctor", "--json"] } else { &["doctor"] })
            .env("WORKSPACE", folder.path().to_string_lossy())
            .env("CALLBACK_URL", api.url())
            .env("ANTHROPIC_BASE_URL", "http://model.test")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.test:4318")
            .env("USE_PROXY", "1")
            .env("http_proxy", format!("http://{CREDENTIALS}@{}", proxy.address()))
            .env("NO_PROXY", "127.0.0.1")
            .env("EXTRA_CA_CERTS", folder.path().join("ca.pem").to_string_lossy())
    };
    let finished = doctor(true).run().await.unwrap();
    let checks: Vec<serde_json::Value> = serde_json::from_str(&finished.stdout).unwrap();
    let seen = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("no {name:?} in {}", finished.stdout))["seen"].clone()
    };
    let by = format!("http://model.test by the proxy http://{} (http_proxy)", proxy.address());
    assert_eq!(seen("model route"), by);
    assert!(
        seen("callback route")
            .as_str()
            .unwrap()
            .ends_with(" directly, since NO_PROXY has 127.0.0.1")
    );
    assert_eq!(
        seen("collector route"),
        "https://collector.test:4318 directly, since HTTPS_PROXY is not set"
    );
    assert_eq!(seen("certificates"), "the system's, and 1 of EXTRA_CA_CERTS");
    // The double has no such path, and answers.
    assert_eq!(seen("model"), "http://model.test/ answers with 404 Not Found");
    let table = doctor(false).run().await.unwrap().stdout;
    for told in [&finished.stdout, &table] {
        assert!(!told.contains("hunter2") && !told.contains("operators-user"), "{told}");
    }
    assert!(table.contains(&by), "{table}");
}
