//! Who has the last word on the attributes of a call.

use serde_json::json;

use crate::support::greeter::{Scripted, reply, request};
use crate::support::world::World;

#[test]
fn how_a_call_ended_is_not_for_the_application_to_say() {
    let worlds = [
        World::new(),
        // Its sampler is asked by another way.
        World::with(|options| options.traces_sampler(|_| 1.0), |layer| layer),
    ];
    for world in worlds {
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| {
                sentry::configure_scope(|scope| {
                    let span = scope.get_span().unwrap();
                    for key in ["rpc.grpc.status_code", "rpc.method", "own"] {
                        span.set_data(key, "own".into());
                    }
                });
                async move { Ok(reply(&name)) }
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            client.say_hello(request("a")).await.unwrap();
            drop(client);
            server.stop().await;
        });
        let data = world.received().only_tx().data;
        assert_eq!(data["rpc.grpc.status_code"], json!(0));
        assert_eq!(data["rpc.response.status_code"], json!("OK"));
        assert_eq!(data["rpc.method"], json!("own"));
        assert_eq!(data["own"], json!("own"));
    }
}
