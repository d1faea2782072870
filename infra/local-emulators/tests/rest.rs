//! The REST surface, by plain HTTP.

mod common;

use common::{Ours, Server, message, subscription};
use reqwest::Method;
use serde_json::{Value, json};

/// One call: the HTTP status, and the answer.
async fn call(server: &Server, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let http = reqwest::Client::new();
    let mut request = http.request(method, format!("{}{path}", server.url()));
    if let Some(body) = body {
        request = request
            .header("content-type", "application/json")
            .body(body.to_string());
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).expect("JSON"))
}

#[tokio::test]
async fn messages_go_through_by_rest() {
    let server = Ours::start().await;
    let (topic, sub) = (
        "/v1/projects/p/topics/rest",
        "/v1/projects/p/subscriptions/rest",
    );
    let (status, created) = call(&server, Method::PUT, topic, Some(json!({}))).await;
    assert_eq!(
        (status, &created["name"]),
        (200, &json!("projects/p/topics/rest"))
    );
    let new = json!({"topic": "projects/p/topics/rest", "ackDeadlineSeconds": 30});
    let (status, created) = call(&server, Method::PUT, sub, Some(new)).await;
    assert_eq!((status, &created["ackDeadlineSeconds"]), (200, &json!(30)));

    let publish = json!({"messages": [{"data": "aGVsbG8=", "attributes": {"a": "b"}}]});
    let (_, published) = call(
        &server,
        Method::POST,
        &format!("{topic}:publish"),
        Some(publish),
    )
    .await;
    let pull = Some(json!({"maxMessages": 10}));
    let (_, pulled) = call(&server, Method::POST, &format!("{sub}:pull"), pull).await;
    let received = &pulled["receivedMessages"][0];
    assert_eq!(received["message"]["data"], "aGVsbG8=");
    assert_eq!(received["message"]["messageId"], published["messageIds"][0]);
    let ack = Some(json!({"ackIds": [received["ackId"]]}));
    let acked = call(&server, Method::POST, &format!("{sub}:acknowledge"), ack).await;
    assert_eq!(acked, (200, json!({})));
    server.clock.advance(std::time::Duration::from_secs(60));
    assert!(
        server
            .pull_now("projects/p/subscriptions/rest")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn update_masks_may_be_in_either_form() {
    let server = Server::start().await;
    let topic = server.topic("masks").await;
    let sub = server.subscription(subscription("masks", &topic)).await;
    for (mask, seconds) in [("ack_deadline_seconds", 20), ("ackDeadlineSeconds", 40)] {
        let update = json!({
            "subscription": {"ackDeadlineSeconds": seconds},
            "updateMask": mask,
        });
        let (status, updated) =
            call(&server, Method::PATCH, &format!("/v1/{sub}"), Some(update)).await;
        assert_eq!(
            (status, &updated["ackDeadlineSeconds"]),
            (200, &json!(seconds))
        );
    }
    let update = json!({"subscription": {"topic": "other"}, "updateMask": "topic"});
    let (status, refused) = call(&server, Method::PATCH, &format!("/v1/{sub}"), Some(update)).await;
    assert_eq!(
        (status, &refused["error"]["status"]),
        (400, &json!("INVALID_ARGUMENT"))
    );
}

#[tokio::test]
async fn lists_take_their_page_from_the_query() {
    let server = Server::start().await;
    for id in ["one", "three", "two"] {
        server.topic(id).await;
    }
    let path = "/v1/projects/p/topics?pageSize=2&$alt=json;enum-encoding=int";
    let (_, page) = call(&server, Method::GET, path, None).await;
    assert_eq!(page["topics"][1]["name"], "projects/p/topics/three");
    assert_eq!(page["topics"][1]["state"], 1, "enums as numbers, as asked");
    let token = page["nextPageToken"].as_str().expect("a token");
    let path = format!("/v1/projects/p/topics?pageSize=2&pageToken={token}");
    let (_, page) = call(&server, Method::GET, &path, None).await;
    assert_eq!(page["topics"].as_array().map(Vec::len), Some(1));
    assert_eq!(page["topics"][0]["state"], "ACTIVE");
    assert_eq!(page.get("nextPageToken"), None);
}

#[tokio::test]
async fn errors_have_googles_form() {
    let server = Server::start().await;
    let (status, missing) = call(&server, Method::GET, "/v1/projects/p/topics/none", None).await;
    assert_eq!(status, 404);
    let expected = json!({"error": {
        "code": 404,
        "message": "Resource not found (resource=none).",
        "status": "NOT_FOUND",
    }});
    assert_eq!(missing, expected);
    let (status, _) = call(&server, Method::GET, "/v1/nothing/here", None).await;
    assert_eq!(status, 404);
    let nonsense = Some(json!({"nonsense": 1}));
    let (status, refused) = call(&server, Method::PUT, "/v1/projects/p/topics/bad", nonsense).await;
    assert_eq!(
        (status, &refused["error"]["status"]),
        (400, &json!("INVALID_ARGUMENT"))
    );
}

#[tokio::test]
async fn the_root_says_that_it_serves() {
    let server = Server::start().await;
    let answer = reqwest::get(server.url()).await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "Ok\n");
}

#[tokio::test]
async fn faults_reach_rest_calls_too() {
    let server = Ours::start().await;
    let topic = server.topic("faulty").await;
    server.publish(&topic, vec![message("a")]).await;
    server.faults.change(|settings| {
        settings.pubsub.refuse.insert("GetTopic".to_owned(), 1.0);
    });
    let (status, refused) = call(&server, Method::GET, &format!("/v1/{topic}"), None).await;
    assert_eq!(
        (status, &refused["error"]["status"]),
        (503, &json!("UNAVAILABLE"))
    );
}
