// SPDX-License-Identifier: Apache-2.0
//
// soak SECONDS SAMPLES: the server in this process, its clients in another, for so long; see
// tests/soak.sh. Each second this process is looked at from within: descriptors, resident memory,
// objects on the heap, what the services count. Every few seconds the clients rest until nothing is
// alive any more, and what is left then is compared with what was left after the warm-up.
#include "clients.hpp"
#include "node.hpp"

#include <reactor/poller/poll.hpp>

#include <dirent.h>
#include <fcntl.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>

// --- Objects on the heap ------------------------------------------------------------------------

namespace {

std::atomic<std::int64_t> heap_objects{0};

} // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    if (void* const memory = std::malloc(size == 0 ? 1 : size)) {
        heap_objects.fetch_add(1, std::memory_order_relaxed);
        return memory;
    }
    throw std::bad_alloc{};
}
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    void* const memory = std::malloc(size == 0 ? 1 : size);
    heap_objects.fetch_add(memory != nullptr ? 1 : 0, std::memory_order_relaxed);
    return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    heap_objects.fetch_sub(memory != nullptr ? 1 : 0, std::memory_order_relaxed);
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    ::operator delete(memory);
}

namespace {

using namespace soak;

constexpr int warm_up_seconds = 10;
constexpr int most_busy_seconds = 10; ///< between two rests

/// What the process has at one moment.
struct Sample {
    double seconds = 0;
    bool at_rest = false;
    std::int64_t descriptors = 0;
    std::int64_t resident = 0; ///< KiB
    std::int64_t objects = 0;
    std::int64_t connections = 0;
    std::int64_t timers = 0;
};

std::int64_t count_descriptors() {
    DIR* const folder = ::opendir("/proc/self/fd");
    std::int64_t count = -3; // ".", ".." and this one
    while (folder != nullptr && ::readdir(folder) != nullptr) {
        ++count;
    }
    ::closedir(folder);
    return count;
}

/// Page by page: what /proc/self/statm says lags behind.
std::int64_t resident_memory() {
    std::FILE* const file = std::fopen("/proc/self/smaps_rollup", "re");
    char line[256];
    long kilobytes = 0;
    while (file != nullptr && std::fgets(line, sizeof line, file) != nullptr &&
           std::sscanf(line, "Rss: %ld", &kilobytes) != 1) {
    }
    if (file != nullptr) {
        std::fclose(file);
    }
    return kilobytes;
}

/// A line through points, and how far its slope can be trusted.
struct Line {
    std::size_t points = 0;
    double slope = 0;  ///< units a second
    double noise = 0;  ///< three standard errors of it
    double spread = 0; ///< of the points around it

    [[nodiscard]] bool level() const { return std::abs(slope) <= noise; }
};

/// Least squares. Points that follow each other are alike, so that they count for fewer: as many as
/// the correlation of neighbours leaves. `step` is what one point cannot tell: a page, an object.
Line fit(const std::vector<std::pair<double, double>>& points, double step) {
    Line line;
    line.points = points.size();
    const auto n = static_cast<double>(points.size());
    if (points.size() < 4) {
        return line;
    }
    double mean_x = 0;
    double mean_y = 0;
    for (const auto& [x, y] : points) {
        mean_x += x / n;
        mean_y += y / n;
    }
    double xx = 0;
    double xy = 0;
    for (const auto& [x, y] : points) {
        xx += (x - mean_x) * (x - mean_x);
        xy += (x - mean_x) * (y - mean_y);
    }
    line.slope = xy / xx;
    double squares = 0;
    double neighbours = 0;
    double before = 0;
    for (const auto& [x, y] : points) {
        const double off = y - mean_y - line.slope * (x - mean_x);
        squares += off * off;
        neighbours += off * before;
        before = off;
    }
    const double likeness = squares > 0 ? std::clamp(neighbours / squares, 0.0, 0.95) : 0.0;
    const double worth = std::max(3.0, n * (1 - likeness) / (1 + likeness));
    line.spread = std::sqrt(squares / n);
    const double error = std::sqrt(squares / n + step * step / 12) * std::sqrt(n / worth) /
                         std::sqrt(xx);
    line.noise = 3 * error;
    return line;
}

class Soak {
  public:
    Soak(int seconds, const char* samples_path) : wanted_(seconds),
          busy_seconds_(std::clamp(seconds / 14, 1, most_busy_seconds)),
          samples_path_(samples_path) {
        samples_.reserve(static_cast<std::size_t>(2 * seconds + 100));
    }

    int run() {
        StreamDeadlines deadlines;
        deadlines.idle = 3s;
        TcpListener tcp = TcpListener::bind("127.0.0.1:0", {.deadlines = deadlines});
        std::snprintf(wiring_.doors.path, sizeof wiring_.doors.path, "/tmp/reactor-soak-%d",
                      static_cast<int>(::getpid()));
        UnixListener local = UnixListener::bind(std::string("unix:") + wiring_.doors.path,
                                                {.deadlines = deadlines});
        wiring_.doors.port = tcp.local().port();

        // The clients first: a process with threads is not forked.
        int ends[2] = {-1, -1};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
            return failed("socketpair");
        }
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(tcp.fd());
            ::close(local.fd());
            ::close(ends[0]);
            Clients::live(wiring_.doors, ends[1]);
            ::_exit(0);
        }
        ::close(ends[1]);
        control_ = ends[0];

        const int status = serve(std::move(tcp), std::move(local));
        const char quit = 'q';
        const bool told = ::write(control_, &quit, 1) == 1;
        ::close(control_);
        int left = 0;
        const bool ended = ::waitpid(child, &left, 0) == child && left == 0;
        return told && ended ? status : failed("the clients");
    }

  private:
    int serve(TcpListener tcp, UnixListener local) {
        Offload pool({.threads = 2, .queue = 256});
        wiring_.pool = &pool;
        Reactor<Node> first{Node(wiring_, 0)};
        Reactor<Node, PollPoller> second{Node(wiring_, 1)};
        wiring_.to = {first.controller(), second.controller()};
        first.listen(std::move(tcp));
        second.listen(std::move(local));

        Executor inside;
        BasicExecutor<PollPoller> beside(Placement::beside);
        const Chores chores_inside(inside, wiring_.gauges, pool);
        const Chores chores_beside(beside, wiring_.gauges, pool);
        const auto end_inside = inside.controller();
        const auto end_beside = beside.controller();
        std::vector<std::thread> threads;
        threads.emplace_back([&] { inside.run(); });
        threads.emplace_back([&] { beside.run(); });
        for (unsigned n = 0; n < Node::senders; ++n) {
            threads.emplace_back([this, n] { send_commands(n); });
        }

        const bool came_to_rest = watch();

        over_ = true;
        end_inside.shutdown();
        end_beside.shutdown();
        for (auto& thread : threads) {
            thread.join();
        }
        const auto rest = pool.shutdown(5s);
        first.controller().shutdown();
        second.controller().shutdown();
        const Farewell one = first.join();
        const Farewell two = second.join();
        expect(came_to_rest, "all came to rest, each time");
        expect(one.clean && two.clean && rest.given_back.empty() && rest.running == 0,
               "the end was clean");
        return report();
    }

    /// Both services hear from each of these threads.
    void send_commands(unsigned thread) {
        std::uint64_t number = 0;
        while (!over_) {
            for (int n = 0; n < 20 && !wiring_.gauges.resting; ++n) {
                ++number;
                for (const auto& to : wiring_.to) {
                    while (!over_ && !to.command(Word(Numbered{thread, number}))) {
                        std::this_thread::yield();
                    }
                }
            }
            std::this_thread::sleep_for(5ms);
        }
    }

    // -- watching -------------------------------------------------------------------------------

    bool watch() {
        go();
        pause_for(std::chrono::seconds{warm_up_seconds});
        if (!rest()) {
            return false;
        }
        tally_before_ = tally_;
        began_ = os::Kernel::now();
        sample(true);
        while (now() < wanted_) {
            go();
            for (int n = 0; n < busy_seconds_ && now() < wanted_; ++n) {
                pause_for(1s);
                sample(false);
            }
            if (!rest()) {
                return false;
            }
            sample(true);
        }
        return true;
    }
    static void pause_for(Duration span) { std::this_thread::sleep_for(span); }
    [[nodiscard]] double now() const {
        return std::chrono::duration<double>(os::Kernel::now() - began_).count();
    }
    void tell_clients(char word) {
        if (::write(control_, &word, 1) != 1 ||
            ::read(control_, &tally_, sizeof tally_) != sizeof tally_) {
            std::perror("the clients");
            std::exit(1);
        }
    }
    void go() {
        wiring_.gauges.resting = false;
        tell_clients('g');
    }
    /// True once nothing is alive, and has not been for a moment.
    bool rest() {
        tell_clients('r');
        wiring_.gauges.resting = true;
        int quiet = 0;
        for (int tries = 0; tries < 1000 && quiet < 5; ++tries) {
            pause_for(20ms);
            quiet = wiring_.gauges.at_rest(2) ? quiet + 1 : 0;
        }
        return quiet == 5;
    }
    void sample(bool at_rest) {
        const Gauges& gauges = wiring_.gauges;
        samples_.push_back({now(), at_rest, count_descriptors(), resident_memory(),
                            heap_objects.load(), gauges.connections.load(),
                            gauges.timers.load()});
    }

    // -- telling --------------------------------------------------------------------------------

    static int failed(const char* what) {
        std::perror(what);
        return 1;
    }
    void row(const char* what, const std::string& seen) const {
        std::printf("%-48s %s\n", what, seen.c_str());
    }
    void row(const char* what, std::uint64_t seen) const { row(what, std::to_string(seen)); }
    void expect(bool fulfilled, const char* what) {
        row(what, std::string(fulfilled ? "yes" : "NO"));
        good_ = good_ && fulfilled;
    }
    [[nodiscard]] Line fit_of(bool at_rest, std::int64_t Sample::* what, double step) const {
        std::vector<std::pair<double, double>> points;
        for (const Sample& sample : samples_) {
            if (sample.at_rest == at_rest && sample.seconds >= samples_.back().seconds / 2) {
                points.emplace_back(sample.seconds, static_cast<double>(sample.*what));
            }
        }
        return fit(points, step);
    }
    void expect_level(const char* what, const Line& line, const char* unit) {
        char text[200];
        std::snprintf(text, sizeof text, "%+.4f %s/s, noise %.4f, spread %.1f, %zu points: %s",
                      line.slope, unit, line.noise, line.spread, line.points,
                      line.points < 4  ? "TOO FEW"
                      : line.level()   ? "0 within noise"
                      : line.slope < 0 ? "falls"
                                       : "GROWS");
        row(what, text);
        good_ = good_ && line.points >= 4 && (line.level() || line.slope < 0);
    }

    int report() {
        write_samples();
        if (samples_.empty()) {
            return 1;
        }
        const Gauges& gauges = wiring_.gauges;
        const double seconds = samples_.back().seconds;
        char text[200];
        std::snprintf(text, sizeof text, "%.0f, after %d of warm-up", seconds, warm_up_seconds);
        row("seconds", text);
        const auto opened = tally_.opened - tally_before_.opened;
        std::snprintf(text, sizeof text, "%llu, %.0f a second",
                      static_cast<unsigned long long>(opened),
                      static_cast<double>(opened) / seconds);
        row("connections made", text);
        row("connections closed", tally_.closed - tally_before_.closed);
        row("bytes checked", tally_.bytes_checked - tally_before_.bytes_checked);
        row("  half-closed", tally_.half_closed);
        row("  reset", tally_.reset);
        row("  left at once", tally_.left_at_once);
        row("  closed by the server", tally_.closed_by_server);
        row("  stalled, not reading", tally_.stalled_reading);
        row("  stalled, silent until the deadline", tally_.timed_out);
        row("  vanished with their process", tally_.vanished);
        row("handed to the other reactor", tally_.handed_over);
        row("answered by the pool", tally_.offloaded);
        row("no port left", tally_.no_port);
        row("accepted by the server", std::to_string(gauges.accepted));
        row("commands", std::to_string(gauges.commands));
        row("callbacks of the executors", std::to_string(gauges.callbacks));
        row("timers of connections fired", std::to_string(gauges.timers_fired));

        const Sample* first = nullptr;
        const Sample* last = nullptr;
        Sample most;
        std::int64_t drift = 0;
        std::size_t rests = 0;
        for (const Sample& sample : samples_) {
            most.descriptors = std::max(most.descriptors, sample.descriptors);
            most.resident = std::max(most.resident, sample.resident);
            most.connections = std::max(most.connections, sample.connections);
            most.timers = std::max(most.timers, sample.timers);
            if (sample.at_rest) {
                first = first == nullptr ? &sample : first;
                last = &sample;
                drift = std::max(drift, std::abs(sample.descriptors - first->descriptors));
                ++rests;
            }
        }
        row("most at a sample: descriptors", std::to_string(most.descriptors));
        row("most at a sample: connections", std::to_string(most.connections));
        row("most at a sample: timers", std::to_string(most.timers));
        row("most at a sample: resident, KiB", std::to_string(most.resident));
        row("at rest, first: descriptors, KiB, heap objects", at_rest(*first));
        row("at rest, last: descriptors, KiB, heap objects", at_rest(*last));
        row("rests compared", rests);
        row("descriptor drift, the most of all rests", std::to_string(drift));
        good_ = good_ && drift == 0;
        constexpr double page = 4;
        expect_level("resident memory, each second, second half",
                     fit_of(false, &Sample::resident, page), "KiB");
        expect_level("resident memory at rest, second half",
                     fit_of(true, &Sample::resident, page), "KiB");
        expect_level("heap objects at rest, second half", fit_of(true, &Sample::objects, 1),
                     "objects");
        expect(tally_.opened == tally_.closed, "as many closed as made");
        expect(tally_.wrong == 0, "every answer was right");
        expect(gauges.wrong == 0, "the server saw nothing wrong");
        if (tally_.wrong != 0 || gauges.wrong != 0) {
            row("wrong: clients, server",
                std::to_string(tally_.wrong) + ", " + std::to_string(gauges.wrong));
        }
        std::printf("%s\n", good_ ? "passed" : "FAILED");
        return good_ ? 0 : 1;
    }
    [[nodiscard]] static std::string at_rest(const Sample& sample) {
        return std::to_string(sample.descriptors) + ", " + std::to_string(sample.resident) + ", " +
               std::to_string(sample.objects);
    }
    void write_samples() const {
        std::FILE* const file = std::fopen(samples_path_, "we");
        if (file == nullptr) {
            std::perror(samples_path_);
            return;
        }
        std::fputs("seconds,at_rest,descriptors,resident_kib,heap_objects,connections,timers\n",
                   file);
        for (const Sample& sample : samples_) {
            std::fprintf(file, "%.2f,%d,%lld,%lld,%lld,%lld,%lld\n", sample.seconds,
                         sample.at_rest ? 1 : 0, static_cast<long long>(sample.descriptors),
                         static_cast<long long>(sample.resident),
                         static_cast<long long>(sample.objects),
                         static_cast<long long>(sample.connections),
                         static_cast<long long>(sample.timers));
        }
        std::fclose(file);
    }

    const double wanted_;
    const int busy_seconds_;
    const char* const samples_path_;
    Node::Wiring wiring_;
    int control_ = -1;
    std::atomic<bool> over_{false};
    Timestamp began_;
    Tally tally_;
    Tally tally_before_;
    std::vector<Sample> samples_;
    bool good_ = true;
};

} // namespace

int main(int count, char** arguments) {
    const int seconds = count == 3 ? std::atoi(arguments[1]) : 0;
    if (seconds <= 0) {
        std::fprintf(stderr, "usage: soak SECONDS SAMPLES\n");
        return 2;
    }
    raise_descriptor_limit();
    return Soak(seconds, arguments[2]).run();
}
