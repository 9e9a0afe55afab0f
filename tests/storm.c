// SPDX-License-Identifier: Apache-2.0
//
// A storm of signals over a whole program. Preloaded (LD_PRELOAD), it sends SIGURG to every thread,
// to the first 10 000 times a second by default (STORM_HZ), to the n-th an n-th of that, so that a
// crowd of threads still gets on; to a handler without SA_RESTART: what can fail with EINTR does. Timers of POSIX, not setitimer(2): each thread has its own storm, and SIGALRM
// stays with the program. SIGURG, as it is ignored by default: what this program starts by exec is
// calm, and none of it is killed by a signal that was on its way. A forked child has its storm.
//
// At its end the program says how many signals came, and fails if none did: nothing was tested.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static atomic_long gusts;
static long period;
static atomic_long threads;
static pthread_key_t timer_of_thread;

static void blow(int signal) {
    (void)signal;
    atomic_fetch_add_explicit(&gusts, 1, memory_order_relaxed);
}

static void fail(const char *what) {
    fprintf(stderr, "storm: %s\n", what);
    _exit(99);
}

// The storm of this thread.
static void rise(void) {
    // A sleep that is begun anew for its remainder grows by the slack each time: 50 us by default.
    prctl(PR_SET_TIMERSLACK, 1UL);
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGURG;
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    timer_t timer;
    const long share = period * (atomic_fetch_add(&threads, 1) + 1);
    const struct itimerspec every = {{0, share}, {0, share}};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 ||
        timer_settime(timer, 0, &every, NULL) != 0 ||
        pthread_setspecific(timer_of_thread, timer) != 0) {
        fail("no timer");
    }
}

// As a thread ends: a timer would outlive it. Null is a timer too, the first one; it is the main
// thread's, which has it until the end of the process.
static void settle(void *timer) {
    timer_delete((timer_t)timer);
    atomic_fetch_sub(&threads, 1);
}

struct start {
    void *(*body)(void *);
    void *argument;
};

static void *stormed(void *of) {
    const struct start start = *(struct start *)of;
    free(of);
    rise();
    return start.body(start.argument);
}

// In the place of the C library's: each thread begins with its storm.
int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*body)(void *),
                   void *argument) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    }
    struct start *start = malloc(sizeof *start);
    if (start == NULL) {
        return EAGAIN;
    }
    start->body = body;
    start->argument = argument;
    const int error = real(thread, how, stormed, start);
    if (error != 0) {
        free(start);
    }
    return error;
}

__attribute__((constructor)) static void begin(void) {
    unsetenv("LD_PRELOAD");
    const char *const hertz = getenv("STORM_HZ");
    period = 1000000000L / (hertz != NULL && atol(hertz) > 1 ? atol(hertz) : 10000);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = blow;
    if (sigaction(SIGURG, &action, NULL) != 0 ||
        pthread_key_create(&timer_of_thread, settle) != 0 ||
        pthread_atfork(NULL, NULL, rise) != 0) {
        fail("cannot begin");
    }
    rise();
}

__attribute__((destructor)) static void end(void) {
    // A program may be over before the first period is.
    for (int n = 0; gusts == 0 && n < 100; n++) {
        const struct timespec rest = {0, period};
        nanosleep(&rest, NULL);
    }
    if (gusts == 0) {
        fail("not one signal came");
    }
    fprintf(stderr, "storm: %ld signals\n", (long)gusts);
}
