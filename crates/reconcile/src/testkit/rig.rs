//! A bench that runs one reconciler against the fake API, one step at a time and without the driver's
//! queue, so that a test decides what happens when.

use std::sync::Arc;

use meta::{Fixed, ObjectKey, Seeded, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::FakeApi;
use crate::{Acted, Actor, Context, Plan, Reconciler, expect::all_met};

/// One reconciler at the fake API, with a clock that stands still.
pub struct Bench<R> {
    /// The API.
    pub api: FakeApi,
    /// The clock; [`Fixed::set`] moves it.
    pub clock: Arc<Fixed>,
    /// Client and caches of the reconciler.
    pub cx: Context,
    /// The reconciler.
    pub reconciler: R,
    actor: Actor,
}

/// More steps than any key needs to come to rest; a plan that never does is a defect.
const STEPS_MAX: usize = 64;

#[allow(clippy::expect_used, clippy::panic, reason = "test kit: failing loudly is its purpose")]
impl<R: Reconciler> Bench<R> {
    /// A bench at 2026-01-01T00:00:00Z with an empty API.
    pub fn new(reconciler: R) -> Self {
        let start = Timestamp::from_second(1_767_225_600).expect("a valid time");
        let clock = Arc::new(Fixed::new(start));
        let random = Arc::new(Seeded::new(1));
        let api = FakeApi::new(clock.clone(), random.clone());
        let cx = Context::new(api.client(), clock.clone(), random);
        Self { api, clock, cx, reconciler, actor: Actor::new(R::NAME) }
    }

    /// A bench for another reconciler at the same API, with the same caches.
    pub fn beside<Q: Reconciler>(&self, reconciler: Q) -> Bench<Q> {
        let Self { api, clock, cx, reconciler: _, actor: _ } = self;
        Bench {
            api: api.clone(),
            clock: Arc::clone(clock),
            cx: cx.clone(),
            reconciler,
            actor: Actor::new(Q::NAME),
        }
    }

    /// Stores every document of a YAML text.
    pub fn put_yaml(&self, text: &str) {
        for object in yaml_documents(text) {
            self.api.put(&object);
        }
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: i64) {
        use meta::Clock;
        let to = self.clock.now().as_second() + seconds;
        self.clock.set(Timestamp::from_second(to).expect("a valid time"));
    }

    /// Lets the caches see everything, then observes and plans. `None`: nothing left to do.
    pub async fn plan(&self, key: &ObjectKey) -> Option<Plan> {
        use meta::Clock;
        let observed = async {
            let none: crate::watches::Enqueue = Arc::new(|_| {});
            self.reconciler.watches().start(&self.cx.stores, &none).await;
            self.cx.stores.caught_up(|kind, cache, progress| self.api.is_shown(kind, cache, progress)).await;
            self.reconciler.observe(&self.cx, key).await.expect("observe")
        };
        let world = tokio::select! {
            world = observed => world?,
            kind = self.api.unknown() => panic!("{} watches {kind}, which the fake API does not know: FakeApi::register it", R::NAME),
        };
        Some(self.reconciler.plan(&world, self.clock.now()))
    }

    /// One whole step: plan and act. Gives the plan and what became of it.
    pub async fn step(&self, key: &ObjectKey) -> Option<(Plan, Acted)> {
        let plan = self.plan(key).await?;
        let acted = self.actor.act(&self.cx, &plan).await;
        assert!(all_met(&acted.expectations).await, "the caches never showed a write");
        Some((plan, acted))
    }

    /// Steps until a step writes nothing: the property every reconciler has to have. Panics when that
    /// does not happen, or when acting fails otherwise than by a conflict. Gives the number of steps.
    pub async fn settle(&self, key: &ObjectKey) -> usize {
        for steps in 0..STEPS_MAX {
            let before = self.api.revision();
            let Some((plan, acted)) = self.step(key).await else { return steps };
            match acted.result {
                Err(error) if error.is_conflict() => continue,
                result => result.unwrap_or_else(|error| panic!("{key}: {error:?}")),
            }
            if acted.writes == 0 {
                assert_eq!(before, self.api.revision(), "a step without writes changed something");
                assert!(plan.events.is_empty(), "{key} is at rest and still has news: {:?}", plan.events);
                return steps;
            }
        }
        panic!("{key} did not come to rest in {STEPS_MAX} steps");
    }
}

/// One YAML document as a value of any type.
#[allow(clippy::panic, reason = "test kit: a bad fixture is a bug of the test")]
pub fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("bad fixture: {error}\n{text}"))
}

/// All documents of a YAML text (`---` between them).
pub fn yaml_documents(text: &str) -> Vec<Value> {
    text.split("\n---").filter(|part| !part.trim().is_empty()).map(yaml).collect()
}
