//! Work on files that pods wait for: folders made, filled and removed, on threads that may wait for a disk.
//!
//! Invariants: no more of it than [`WORKERS`] happens at once, in the order in which it was asked for, in folders of the node's own; work
//! that began is finished. A thousand pods that start together took as many threads as the disk was slow for, and each keeps memory of its
//! own. Folders that somebody lends from the machine may be on a disk that never answers: nobody else waits for those.

use tokio::sync::Semaphore;

/// Files are mostly in memory: more threads than these only wait for each other.
const WORKERS: usize = 4;

static FREE: Semaphore = Semaphore::const_new(WORKERS);

/// Does the work, once it is its turn, and says what came of it. Passes its panics on.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let turn = FREE.acquire().await;
    elsewhere(move || {
        // Until it is done, whoever waits for it.
        let _turn = turn;
        work()
    })
    .await
}

/// The same in folders that are not the node's own: at once.
pub(crate) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Only while the node's runtime is being taken down.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn no_more_than_a_few_work_at_once_and_who_stops_waiting_ends_nothing() {
        let at_once = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicUsize::new(0));
        let works: Vec<_> = (0..10 * WORKERS)
            .map(|_| {
                let (at_once, most, ended) = (at_once.clone(), most.clone(), ended.clone());
                tokio::spawn(blocking(move || {
                    most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    ended.fetch_add(1, Ordering::SeqCst);
                }))
            })
            .collect();
        for work in works {
            work.await.unwrap();
        }
        assert_eq!(ended.load(Ordering::SeqCst), 10 * WORKERS);
        assert!(most.load(Ordering::SeqCst) <= WORKERS);
        let panicked = tokio::spawn(blocking(|| panic!("a broken disk")));
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(blocking(|| 7).await, 7, "its turn was given back");
    }
}
