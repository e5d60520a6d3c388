//! The event loop engine of oxloop.
//!
//! Everything an event loop is, short of an interpreter: readiness of file descriptors ([`Selector`]), operations that
//! complete ([`Proactor`](proactor::Proactor)), timers ([`Timers`]), the queue of what runs next ([`Ready`]), the one
//! door for other threads ([`Inbox`]) and the arithmetic of a turn ([`Engine`]).
//!
//! The engine is generic over the payload `T` that it schedules, takes the present time as an
//! argument, keeps no global state and no thread of its own, and never calls back: it returns what
//! is ready, and its owner decides what to do with it. Dropping a payload is therefore always the
//! owner's act too: whatever removes payloads hands them back.

pub mod addr;
pub mod clock;
pub mod flow;
pub mod inbox;
pub mod interest;
pub mod pages;
pub mod proactor;
pub mod ready;
pub mod selector;
pub mod sys;
pub mod timers;
pub mod tls_records;
pub mod token;
pub mod turn;
pub mod volume;
pub mod waker;
pub mod write_queue;

pub use addr::Address;
pub use clock::{Clock, Timestamp};
pub use flow::{FlowControl, FlowEvent, LimitsError};
pub use inbox::Inbox;
pub use interest::Interest;
pub use pages::Pages;
pub use ready::Ready;
pub use selector::{Event, Events, Selector, SelectorKind};
pub use timers::Timers;
pub use token::{Slots, Token};
pub use turn::Engine;
pub use volume::Volume;
pub use waker::Waker;
pub use write_queue::{Habit, WriteQueue};
