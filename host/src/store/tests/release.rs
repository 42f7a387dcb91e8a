//! Tests of a store that is closed for another process.

use std::sync::mpsc::channel;

use super::*;

#[tokio::test]
async fn a_release_waits_for_the_store_to_be_open_again() {
    let ((begun, is_begun), (go, wait)) = (channel(), channel());
    let journal = Memory::default().journal([]).before_recovery(move || {
        begun.send(()).unwrap();
        wait.recv().unwrap();
    });
    let store = JournaledStore::start(journal, Schema::DECLARED).unwrap();
    store.release("the first process starts").await.unwrap();
    store.resume();
    is_begun.recv().unwrap();
    let released = store.release("the second process starts");
    let write = insert(Kind::Service, 1, json!({"name": "a"}));
    // Its refusal says that the writer knows of the release as well.
    store.write(vec![write.clone()]).await.unwrap_err();
    go.send(()).unwrap();
    released.await.unwrap();
    let refused = store.write(vec![write.clone()]).await.unwrap_err();
    assert!(refused.to_string().contains("second"), "{refused}");
    store.resume();
    go.send(()).unwrap();
    written_at_last(&store, write).await;
}
