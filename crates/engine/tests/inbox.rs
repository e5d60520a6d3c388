//! The inbox under threads: nothing is lost, nothing is reordered, nobody sleeps through a push.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oxloop_engine::{Events, Inbox, Interest, Selector, SelectorKind, Token, Waker};

const WAKER: Token = Token::reserved(0);
/// Longer than any sleep here may last: reaching it means that a wake-up was lost.
const LOST: Duration = Duration::from_secs(20);

/// The receiving half, as a loop has it.
struct Receiver<'a> {
    inbox: &'a Inbox<(u32, u32)>,
    selector: Selector,
    events: Events,
    queue: VecDeque<(u32, u32)>,
    sleeps: u32,
}

impl<'a> Receiver<'a> {
    fn new(inbox: &'a Inbox<(u32, u32)>, kind: SelectorKind) -> io::Result<Self> {
        let mut selector = Selector::new(kind)?;
        selector.register(
            inbox.waker().source().expect("a descriptor"),
            WAKER,
            Interest::READABLE,
        )?;
        let (events, queue) = (Events::with_capacity(1), VecDeque::new());
        Ok(Self { inbox, selector, events, queue, sleeps: 0 })
    }

    /// One turn: sleeps unless something is there, then takes what is.
    fn turn(&mut self) -> io::Result<()> {
        if self.inbox.prepare_sleep() {
            self.selector.wait(&mut self.events, Some(LOST))?;
            self.inbox.finish_sleep();
            self.sleeps += 1;
            assert!(!self.events.is_empty(), "a wake-up was lost");
            self.inbox.waker().drain();
        }
        self.inbox.drain_into(&mut self.queue);
        Ok(())
    }
}

fn many_threads(kind: SelectorKind, threads: u32, pushes: u32) -> io::Result<()> {
    let inbox = Inbox::new(Waker::new()?);
    let mut receiver = Receiver::new(&inbox, kind)?;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let inbox = &inbox;
            scope.spawn(move || {
                for number in 0..pushes {
                    assert_eq!(inbox.push((thread, number)), Ok(()));
                    if number % 16 == thread {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut next = vec![0; threads as usize];
        while next.iter().sum::<u32>() < threads * pushes {
            receiver.turn()?;
            while let Some((thread, number)) = receiver.queue.pop_front() {
                assert_eq!(number, next[thread as usize], "of thread {thread}");
                next[thread as usize] += 1;
            }
        }
        assert!(!inbox.is_pending());
        Ok(())
    })
}

#[test]
fn nothing_is_lost_or_reordered() -> io::Result<()> {
    for kind in SelectorKind::available() {
        many_threads(*kind, 4, 10_000)?;
        many_threads(*kind, 1, 30_000)?;
    }
    Ok(())
}

/// Lets the pushing thread run to its end when the receiver fails.
struct Release<'a>(&'a AtomicU32);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(u32::MAX, Ordering::Release);
    }
}

/// The pushing thread waits for its push to be taken before it makes the next one, so that one
/// wake-up lost would be the end; and the receiver dawdles for all lengths of time, so that pushes
/// meet it in every instruction of going to sleep. (With the two lines of `prepare_sleep` in the
/// other order this fails in most runs.)
#[test]
fn nobody_sleeps_through_a_push() -> io::Result<()> {
    // System calls under Wine take long.
    const PUSHES: u32 = if cfg!(windows) { 2_000 } else { 100_000 };
    let inbox = Inbox::new(Waker::new()?);
    let mut receiver = Receiver::new(&inbox, SelectorKind::best())?;
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let _release = Release(&taken);
        scope.spawn(|| {
            for number in 0..PUSHES {
                assert_eq!(inbox.push((0, number)), Ok(()));
                let mut spins = 0;
                while taken.load(Ordering::Acquire) <= number {
                    spins += 1;
                    // Spins as long as the other thread may be running on another processor.
                    if spins < 2_000 { std::hint::spin_loop() } else { std::thread::yield_now() }
                }
            }
        });
        for number in 0..PUSHES {
            // Not `spin_loop`: a pause of the processor is longer than what is to be hit.
            for pause in 0..number % 211 {
                std::hint::black_box(pause);
            }
            while receiver.queue.is_empty() {
                receiver.turn()?;
            }
            assert_eq!(receiver.queue.pop_front(), Some((0, number)));
            taken.store(number + 1, Ordering::Release);
        }
        Ok(())
    })
}

#[test]
fn one_wake_up_for_many_pushes_and_none_for_a_loop_that_is_awake() -> io::Result<()> {
    let inbox = Inbox::new(Waker::new()?);
    let mut receiver = Receiver::new(&inbox, SelectorKind::best())?;
    let awake = |receiver: &mut Receiver<'_>| {
        receiver.selector.wait(&mut receiver.events, Some(Duration::ZERO))?;
        io::Result::Ok(!receiver.events.is_empty())
    };
    assert_eq!(inbox.push((0, 0)), Ok(()));
    assert!(!awake(&mut receiver)?, "a loop that is awake needs no wake-up");
    receiver.turn()?;
    assert_eq!(receiver.sleeps, 0);

    assert!(inbox.prepare_sleep());
    assert_eq!(inbox.push((0, 1)), Ok(()));
    assert!(awake(&mut receiver)?);
    inbox.waker().drain();
    assert_eq!(inbox.push((0, 2)), Ok(()));
    assert!(!awake(&mut receiver)?, "the first push has claimed the wake-up of this sleep");
    inbox.finish_sleep();
    receiver.turn()?;
    assert_eq!(receiver.queue, [(0, 0), (0, 1), (0, 2)]);

    inbox.wake();
    assert!(awake(&mut receiver)?);
    Ok(())
}

#[test]
fn a_closed_inbox_gives_everything_back() -> io::Result<()> {
    let inbox = Inbox::new(Waker::new()?);
    let refused = AtomicU32::new(0);
    let mut kept = 0;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (inbox, refused) = (&inbox, &refused);
            scope.spawn(move || {
                for number in 0..5_000 {
                    if let Err(payload) = inbox.push((thread, number)) {
                        assert_eq!(payload, (thread, number));
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        while !inbox.is_pending() {
            std::thread::yield_now();
        }
        kept = inbox.close().len();
    });
    assert!(kept > 0 && inbox.is_closed());
    assert_eq!(kept + refused.load(Ordering::Relaxed) as usize, 15_000);
    assert!(inbox.close().is_empty());
    Ok(())
}
