//! Log lines as Cloud Logging reads them.

use infrachat_e2e::WEST;
use infrachat_proto::gatekeeper::v1::{
    RegisterRequest, gatekeeper_service_client::GatekeeperServiceClient,
};
use serde_json::Value;
use tonic::Request;

use crate::world::{PASSWORD, World, say};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// Everything that is ours.
const LOG: &str = "info,infrachat_gatekeeper=debug,infrachat_switchboard=debug,infrachat_shard=debug,infrachat_control=debug";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_name_severity_time_and_the_request_they_belong_to() {
    let world = World::start(LOG, &["--log-format", "cloud"]).await;
    let endpoint = format!("http://{}", world.plan.gatekeeper(WEST));
    let mut gatekeeper = GatekeeperServiceClient::connect(endpoint)
        .await
        .expect("connects");
    let mut request = Request::new(RegisterRequest {
        user: "erin".to_owned(),
        password: PASSWORD.to_owned(),
    });
    let parent = format!("00-{TRACE}-{CALLER}-01").parse().expect("a value");
    request.metadata_mut().insert("traceparent", parent);
    let tokens = gatekeeper
        .register(request)
        .await
        .expect("registers")
        .into_inner();
    let alice = world.person(WEST, "alice").await;
    let carol = world.person(WEST, "carol").await;
    say(&alice, "a secret between us", &[&carol]).await;

    let said = world.stop().await;
    let secrets = [
        PASSWORD,
        &tokens.access_token,
        &tokens.refresh_token,
        "a secret between us",
    ];
    let mut registered = None;
    for (who, line) in &said {
        let fields: Value =
            serde_json::from_str(line).unwrap_or_else(|err| panic!("{who}: {err}: {line}"));
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        let severity = text("severity");
        assert!(
            ["DEBUG", "INFO", "WARNING", "ERROR"].contains(&severity.as_str()),
            "{who}: {line}"
        );
        let time = text("time");
        assert!(
            time.len() >= 20 && time.starts_with("20") && time.ends_with('Z'),
            "{who}: {line}"
        );
        assert!(!text("message").is_empty(), "{who}: {line}");
        let labels = &fields["logging.googleapis.com/labels"];
        let region = labels["region"].as_str().expect("a region");
        assert!(who.starts_with(region), "{who}: {line}");
        for secret in secrets {
            assert!(!line.contains(secret), "{who} told a secret: {line}");
        }
        if text("message") == "signed in" && text("user") == "erin" {
            registered = Some(fields);
        }
    }
    let registered = registered.expect("the registration was logged");
    let google = |name: &str| &registered[format!("logging.googleapis.com/{name}")];
    assert_eq!(
        *google("trace"),
        format!("projects/infrachat/traces/{TRACE}")
    );
    let span = google("spanId").as_str().expect("a span");
    assert!(
        span.len() == 16 && span != CALLER,
        "a span of its own: {span}"
    );
    assert_eq!(registered["severity"], "INFO");
    assert_eq!(registered["call"], "register");
    assert_eq!(
        registered["span"]["rpc"],
        "/infrachat.gatekeeper.v1.GatekeeperService/Register"
    );
    assert_eq!(
        registered["logging.googleapis.com/labels"]["service"],
        "gatekeeper"
    );
}
