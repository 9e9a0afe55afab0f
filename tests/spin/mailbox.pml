// SPDX-License-Identifier: Apache-2.0
//
// A model of the way into the loop: detail/mailbox.hpp, and of Runtime what waits, collects and
// ends (runtime.hpp: wait, take_commands, part). A sender of two messages and one of one, one
// who wakes or shuts down, and a consumer who may also be woken by a timer.
//
// Each step here is one access to memory that others see, or one system call, as in the code; what
// one thread does to its own is one step with its neighbour. Spin's memory is sequentially
// consistent: memory orders are for ThreadSanitizer and tests/mailbox.cpp. The pool of nodes is
// not modelled: a node is a number.
//
// Promised: each message is taken over and handled once, in its sender's order, or refused, never
// both (I10, I11); whoever called wake() or shutdown() is heard; the consumer does not sleep while
// anything is left; nobody rings twice a sleep, or while the consumer is awake; no loop is hot.
//
// -DEDGE: the bell is edge-triggered and never read (EpollPoller), else level-triggered and read
// after the wait (PollPoller). -DEMBEDDED: an outer loop asks until_next() and waits on fd().
// -DWRONG_...: what must be found; see tests/spin.sh.

#define number_mask 7
#define asleep_mark 8
#define notified_mark 16
#define closed_mark 32
#define messages 3

byte word;                     // the inbox
byte link[messages + 1];       // of the nodes; a link is none or a number
bool bell;                     // readable, or an edge that was not told yet

bool shutdown_flag;
bool note;                     // something that a caller of wake() had written

// What is true, for the assertions; no thread decides by it.
bool accepted[messages + 1];
bool refused[messages + 1];
bool taken[messages + 1];
byte last_taken[2];
bool may_sleep;                // between prepare_sleep() and awake()
bool note_seen;
bool shutdown_asked;
bool ended;

inline ring() { bell = true }

// Who clears the mark of a sleep rings, and for each sleep that is one.
inline clears_mark(before) { assert(!(before & asleep_mark) || may_sleep) }

inline send(number) {
    if
    :: word & closed_mark -> refused[number] = true
    :: else ->
        head = word;
        do
        :: atomic {
            if
#ifndef WRONG_CLOSED_IS_CHECKED_ONCE
            :: head & closed_mark -> refused[number] = true; break
#endif
            :: else ->
                link[number] = head & number_mask; // nobody sees it before it is pushed
                if
                :: word == head ->
#if defined(WRONG_PUSH_KEEPS_THE_MARK)
                    word = (head & (notified_mark | asleep_mark)) | number;
#elif defined(WRONG_PUSH_DROPS_A_WAKE)
                    word = number;
#else
                    word = (head & notified_mark) | number;
#endif
                    clears_mark(head);
                    accepted[number] = true;
                    break
                :: else -> head = word
                fi
            fi
        }
        od;
#ifndef WRONG_PUSH_WITHOUT_RING
        if
        :: accepted[number] && (head & asleep_mark) ->
#ifdef WRONG_PUSH_KEEPS_THE_MARK
            assert(!bell); // a second ring of the same sleep
#endif
            ring()
        :: else
        fi
#endif
    fi;
    head = 0
}

inline wake() {
    head = word;
    do
    :: atomic {
        if
        :: word == head ->
            word = (head | notified_mark) & ~asleep_mark;
            clears_mark(head);
            break
        :: else -> head = word
        fi
    }
    od;
#ifndef WRONG_WAKE_WITHOUT_RING
    if
    :: head & asleep_mark -> ring()
    :: else
    fi;
#endif
    head = 0
}

proctype sender_of_two() {
    byte head;
#ifndef SMALL
    send(1);
#endif
    send(2)
}

proctype sender_of_one() {
    byte head;
    send(3)
}

// Controller::wake() and shutdown(), or nothing.
proctype requester() {
    byte head;
    if
    :: true ->
        shutdown_asked = true;
#ifdef WRONG_FLAG_BEHIND_THE_WAKE
        wake();
        shutdown_flag = true
#else
        shutdown_flag = true;
        wake()
#endif
    :: note = true; wake()
    :: true
    fi
}

// -- the consumer ---------------------------------------------------------------------------------

inline prepare_sleep() {
#ifndef WRONG_LEFT_OVERS_SLEEP
    if
    :: next != 0 -> asleep = false
    :: else ->
#endif
        head = word;
#ifdef WRONG_CHECK_BEFORE_THE_MARK
        if
        :: head & (number_mask | notified_mark) -> asleep = false
        :: else ->
            atomic { word = word | asleep_mark; may_sleep = true; asleep = true }
        fi
#else
        do
        :: head & (number_mask | notified_mark) -> asleep = false; break
        :: else ->
            atomic {
                if
                :: word == head ->
                    word = head | asleep_mark;
                    may_sleep = true;
                    asleep = true;
                    break
                :: else -> head = word
                fi
            }
        od
#endif
#ifndef WRONG_LEFT_OVERS_SLEEP
    fi;
#endif
    head = 0
}

// The poller has returned. An edge is told once; a level stays until it is read.
inline answer_bell() {
#if defined(EDGE)
    bell = false
#elif !defined(WRONG_BELL_IS_NEVER_READ) && !defined(WRONG_BELL_IS_READ_BEFORE_THE_SLEEP)
    if
    :: bell -> bell = false
    :: else
    fi
#else
    skip
#endif
}

inline awake() {
    if
    :: word & asleep_mark -> atomic {
#ifndef WRONG_MARK_STAYS
        word = word & ~asleep_mark;
#endif
        may_sleep = false }
    :: else -> may_sleep = false
    fi
}

// The inbox has the newest first, the consumer's list has it last.
inline append() {
    d_step {
        newest = head & number_mask;
        number = newest;
        oldest = 0;
#ifdef WRONG_NEWEST_FIRST
        oldest = newest;
        do
        :: link[number] != 0 -> number = link[number]
        :: else -> break
        od;
        newest = number;
#else
        do
        :: number != 0 ->
            older = link[number];
            link[number] = oldest;
            oldest = number;
            number = older
        :: else -> break
        od;
#endif
        if
        :: newest == 0
        :: newest != 0 && next != 0 -> link[last] = oldest; last = newest
        :: newest != 0 && next == 0 -> next = oldest; last = newest
        fi;
        newest = 0; number = 0; oldest = 0; older = 0
    }
}

inline collect() {
    head = word;
    if
    :: (head & (number_mask | notified_mark)) == 0 -> notified = false
    :: else ->
#if defined(WRONG_INBOX_IS_EMPTIED_LATER)
        head = word;
        word = word & closed_mark;
#elif defined(WRONG_COLLECT_OPENS_AGAIN)
        atomic { older = word; word = 0; head = older; older = 0 }
#else
        atomic { older = word; word = head & closed_mark; head = older; older = 0 }
#endif
        append();
        notified = (head & notified_mark) != 0
    fi;
    head = 0
}

inline take_next() {
    d_step {
        number = next;
        assert(!taken[number]);
        taken[number] = true;
        assert(last_taken[(number - 1) / 2] < number);
        last_taken[(number - 1) / 2] = number;
        next = link[number];
        number = 0
    }
}

inline take_requests() {
    if
    :: shutdown_flag -> stopping = true
    :: else
    fi;
    if
    :: note -> note_seen = true
    :: else
    fi
}

inline close() {
#ifdef WRONG_CLOSE_IS_A_STORE
    head = word;
    word = head | closed_mark;
    head = 0
#else
    word = word | closed_mark
#endif
}

inline collect_all() {
    collect();
    do
    :: next != 0 -> take_next()
    :: else -> break
    od
}

inline part() {
#ifdef WRONG_CLOSE_COMES_LAST
    collect_all();
    close();
#else
    close();
    collect_all();
#endif
    ended = true
}

proctype consumer() {
    byte head, next, last, newest, oldest, older, number;
    bool asleep, notified, stopping;
    bool restless = true;
    bool timer = true; // it may still end one wait

    do
    :: ended -> break
    :: else ->
#ifdef EMBEDDED
        prepare_sleep(); // until_next()
#else
        if
        :: restless
        :: else -> prepare_sleep()
        fi;
#endif
#ifdef WRONG_BELL_IS_READ_BEFORE_THE_SLEEP
        bell = false;
#endif
        if
        :: !asleep || restless
        :: asleep && !restless ->
end_rest:
            if
            :: bell
            :: timer -> timer = false
            fi
        fi;
        answer_bell();
        if
        :: asleep -> awake(); asleep = false
        :: else
        fi;
        collect();
        if
        :: notified -> take_requests()
        :: else
        fi;
        restless = false;

        // Here the service has its timers and its events.

        collect();
        if
        :: notified ->
#ifndef WRONG_SECOND_WAKE_IS_NOT_HEARD
            take_requests();
            restless = true
#else
            skip
#endif
        :: else
        fi;
        if
        :: next != 0 && !stopping -> take_next() // as many as a turn may handle
        :: else
        fi;
#ifndef WRONG_LEFT_OVERS_SLEEP
        restless = restless || next != 0;
#endif
        if
        :: stopping -> part()
        :: else
        fi
    od
}

// When nobody can go on, all must be well.
proctype judge() {
    byte number;
    timeout;
#ifdef SMALL
    number = 2;
#else
    number = 1;
#endif
    do
    :: number <= messages ->
        assert(accepted[number] != refused[number]);
        assert(accepted[number] == taken[number]);
        assert(!refused[number] || shutdown_asked);
        number++
    :: else -> break
    od;
    assert(ended == shutdown_asked);
    assert(ended || note == note_seen)
}

init {
    atomic {
        run consumer();
        run sender_of_two();
        run sender_of_one();
        run requester();
        run judge()
    }
}
