// SPDX-License-Identifier: Apache-2.0
//
// The directory of the upload server: which names are safe, that a file is there whole or not at
// all, that nothing leads out of the directory, and that each system call may fail.

#include "../examples/http_upload/storage.hpp"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>
#include <vector>

#include "calm.hpp"
#include "catch.hpp"

using namespace http_upload;
using namespace std::string_literals;
namespace fs = std::filesystem;

namespace {

/// A directory of this test, which goes with all that is in it.
class Directory {
  public:
    Directory() : path_(fs::temp_directory_path() / "reactor-storage-XXXXXX") {
        std::string text = path_.string();
        if (::mkdtemp(text.data()) == nullptr) {
            throw std::system_error(errno, std::system_category(), "mkdtemp");
        }
        path_ = text;
    }
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;
    ~Directory() { fs::remove_all(path_); }

    [[nodiscard]] std::string path() const { return path_.string(); }
    [[nodiscard]] fs::path at(const std::string& name) const { return path_ / name; }

    /// All that is in it, hidden or not.
    [[nodiscard]] std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
            names.push_back(entry.path().filename().string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }
    [[nodiscard]] std::string contents(const std::string& name) const {
        std::ifstream file(at(name), std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void put(const std::string& name, const std::string& text) const {
        std::ofstream(at(name), std::ios::binary) << text;
    }

  private:
    fs::path path_;
};

using Names = std::vector<std::string>;

struct Fault {
    int error;
    int after = 0; ///< so many calls succeed first
};
struct Faults {
    std::map<std::string, Fault> faults{}; ///< by the name of the call
    std::size_t most = ~std::size_t{0};    ///< bytes that one read or write may move
    bool zero = false;                     ///< a write moves nothing, and is no error
    std::uint64_t random = 0;
    std::map<std::string, int> calls{};
};

/// FileSystem with faults.
struct FaultyFileSystem : FileSystem {
    static inline Faults state;

    template <class Call>
    static Result unless_faulty(const char* name, Call call) {
        ++state.calls[name];
        const auto fault = state.faults.find(name);
        if (fault != state.faults.end() && fault->second.after-- <= 0) {
            return {-1, fault->second.error};
        }
        return call();
    }
    static Result open_unnamed(int directory) {
        return unless_faulty("open_unnamed", [&] { return FileSystem::open_unnamed(directory); });
    }
    static Result create(int directory, const char* name) {
        return unless_faulty("create", [&] { return FileSystem::create(directory, name); });
    }
    static Result open_beneath(int directory, const char* name) {
        return unless_faulty("open_beneath",
                             [&] { return FileSystem::open_beneath(directory, name); });
    }
    static Result open_component(int directory, const char* name) {
        return unless_faulty("open_component",
                             [&] { return FileSystem::open_component(directory, name); });
    }
    static Result status(int fd, struct stat& status) {
        return unless_faulty("status", [&] { return FileSystem::status(fd, status); });
    }
    static Result write(int fd, std::string_view bytes) {
        return unless_faulty("write", [&] {
            return state.zero ? Result{} : FileSystem::write(fd, bytes.substr(0, state.most));
        });
    }
    static Result read(int fd, std::span<std::byte> space) {
        return unless_faulty("read", [&] {
            return FileSystem::read(fd, space.first(std::min(space.size(), state.most)));
        });
    }
    static Result synchronize(int fd) {
        return unless_faulty("synchronize", [&] { return FileSystem::synchronize(fd); });
    }
    static Result link_unnamed(int fd, int directory, const char* name) {
        return unless_faulty("link_unnamed",
                             [&] { return FileSystem::link_unnamed(fd, directory, name); });
    }
    static bool can_link_unnamed() {
        return unless_faulty("can_link_unnamed", [] { return Result{}; }).ok();
    }
    static Result rename(int directory, const char* from, const char* to) {
        return unless_faulty("rename", [&] { return FileSystem::rename(directory, from, to); });
    }
    static Result unlink(int directory, const char* name) {
        return unless_faulty("unlink", [&] { return FileSystem::unlink(directory, name); });
    }
    static Result random(std::uint64_t& value) {
        value = state.random++;
        return unless_faulty("random", [] { return Result{}; });
    }
    static Result close(int fd) {
        const Result closed = FileSystem::close(fd);
        return unless_faulty("close", [&] { return closed; });
    }
};

using FaultyStore = BasicStore<FaultyFileSystem>;

/// Forgets the faults of the test before.
Faults& fresh() { return FaultyFileSystem::state = Faults{}; }

template <class Store>
void put(const Store& store, std::string_view name, std::string_view text) {
    std::error_code error;
    auto upload = store.begin(error);
    REQUIRE_FALSE(error);
    REQUIRE_FALSE(upload.write(text));
    REQUIRE_FALSE(upload.finish(name));
}
template <class Store>
std::string get(const Store& store, std::string_view name, std::error_code& error) {
    auto stored = store.open(name, error);
    std::string text(error ? 0 : stored.size(), '\0');
    if (!error) {
        error = stored.read(std::as_writable_bytes(std::span(text)));
    }
    return text;
}
std::string get(const Store& store, std::string_view name) {
    std::error_code error;
    std::string text = get(store, name, error);
    CHECK_FALSE(error);
    return text;
}
std::error_code error_of_open(const Store& store, std::string_view name) {
    std::error_code error;
    const StoredForReading stored = store.open(name, error);
    CHECK(stored.size() == 0);
    return error;
}
std::size_t open_descriptors() {
    const fs::directory_iterator all("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

constexpr const char* sha256_of_hello =
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
constexpr const char* sha256_of_nothing =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

} // namespace

TEST_CASE("storage: names that are safe stay as they are") {
    for (const std::string name :
         {"a", "a.txt", "a b.tar.gz", "%2e%2e", "x..%2fy", "a..", "-rf", "~", "C:x", "a\"b",
          "\xc3\xa4\xe6\x96\x87\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf",
          "\xe0\xa0\x80", "\xc2\xa0"}) {
        INFO("name " << name);
        CHECK(safe_name(name) == name);
    }
    CHECK(safe_name(std::string(255, 'x')) == std::string(255, 'x'));
}

TEST_CASE("storage: of a Windows client's path the last component is the name") {
    CHECK(safe_name("C:\\dir\\two.txt") == "two.txt");
    CHECK(safe_name("\\\\server\\share\\x") == "x");
    CHECK(safe_name("..\\x") == "x");
    CHECK(safe_name(std::string(300, 'd') + "\\x") == "x");
    CHECK_FALSE(safe_name("x\\"));
    CHECK_FALSE(safe_name("x\\.."));
    CHECK_FALSE(safe_name("x\\.hidden"));
    CHECK_FALSE(safe_name("a/b\\c"));
    CHECK_FALSE(safe_name("a\\b/c"));
}

TEST_CASE("storage: names that lead elsewhere, hide, or cannot be shown are refused") {
    for (const std::string& name :
         {""s, "."s, ".."s, ".hidden"s, "../x"s, "a/../../x"s, "a/b"s, "/"s, "/etc/passwd"s, "a/"s,
          "a\0b"s, "\0"s, "a\n"s, "\x1b[2J"s, "\x7f"s, "a\tb"s, std::string(256, 'x'),
          // Not UTF-8: a lone or missing continuation, too long a form, a surrogate, too large.
          "\x80"s, "\xc3"s, "\xc3x"s, "\xff"s, "\xc0\xaf"s, "\xe0\x80\xaf"s, "\xf0\x80\x80\xaf"s,
          "\xed\xa0\x80"s, "\xf4\x90\x80\x80"s, "\xe6\x96"s, "\xc1\xbf"s, "\xf5\x80\x80\x80"s,
          // C1 controls.
          "\xc2\x80"s, "\xc2\x9f"s}) {
        INFO("name " << name);
        CHECK_FALSE(safe_name(name));
    }
    CHECK_FALSE(safe_name(std::string(128, '\xc3') + "x"));
}

TEST_CASE("storage: what is uploaded can be read back, and its digest and size are told") {
    const Directory directory;
    const Store store(directory.path());
    std::error_code error = std::make_error_code(std::errc::io_error);
    Upload upload = store.begin(error);
    CHECK_FALSE(error);
    CHECK_FALSE(upload.write("he"));
    CHECK_FALSE(upload.write(""));
    CHECK_FALSE(upload.write("llo"));
    CHECK(upload.size() == 5);
    CHECK(upload.sha256().empty());
    CHECK_FALSE(upload.finish("a"));
    CHECK(upload.sha256() == sha256_of_hello);
    CHECK(directory.names() == Names{"a"});
    CHECK(get(store, "a") == "hello");
    CHECK((fs::status(directory.at("a")).permissions() & fs::perms::others_write) ==
          fs::perms::none);

    Upload empty = store.begin(error);
    CHECK_FALSE(empty.finish("empty"));
    CHECK(empty.sha256() == sha256_of_nothing);
    CHECK(get(store, "empty").empty());

    std::string large(3'000'000, '\0');
    for (std::size_t n = 0; n < large.size(); ++n) {
        large[n] = static_cast<char>(n * 7 + n / 251);
    }
    put(store, "large", large);
    CHECK(get(store, "large") == large);
}

TEST_CASE("storage: nothing is seen of an upload before it is finished, nor after it is given up") {
    const Directory directory;
    const Store store(directory.path());
    put(store, "a", "old");
    const std::size_t descriptors = open_descriptors();
    {
        std::error_code error;
        Upload upload = store.begin(error);
        CHECK_FALSE(upload.write(std::string(100'000, 'x')));
        CHECK(directory.names() == Names{"a"});
        CHECK(get(store, "a") == "old");
        Upload moved = std::move(upload);
        CHECK_FALSE(moved.write("x"));
        CHECK(moved.size() == 100'001);
        CHECK(upload.write("x")); // what was moved from is no upload
    }
    CHECK(directory.names() == Names{"a"});
    CHECK(get(store, "a") == "old");
    CHECK(open_descriptors() == descriptors);
}

TEST_CASE("storage: a file of the name is replaced at once, and its readers keep the old one") {
    const Directory directory;
    const Store store(directory.path());
    put(store, "a", "old old");
    std::error_code error;
    StoredForReading reader = store.open("a", error);
    put(store, "a", "new");
    CHECK(directory.names() == Names{"a"});
    CHECK(get(store, "a") == "new");
    std::string text(reader.size(), '\0');
    CHECK_FALSE(reader.read(std::as_writable_bytes(std::span(text))));
    CHECK(text == "old old");
}

TEST_CASE("storage: whoever looks while two replace a file sees one of the two, whole") {
    const Directory directory;
    const Store store(directory.path());
    put(store, "a", std::string(10'000, 'x'));
    std::array<std::error_code, 2> failures;
    const auto replace = [&](std::size_t who) {
        for (int n = 0; n < 200 && !failures[who]; ++n) {
            Upload upload = store.begin(failures[who]);
            upload.write(std::string(10'000, who == 0 ? 'x' : 'y'));
            failures[who] = upload.finish("a");
        }
    };
    std::thread one(replace, 0);
    std::thread two(replace, 1);
    std::size_t torn = 0;
    for (int n = 0; n < 300; ++n) {
        std::error_code error;
        const std::string text = get(store, "a", error);
        const bool whole =
            !error && (text == std::string(10'000, 'x') || text == std::string(10'000, 'y'));
        torn += whole ? 0U : 1U;
    }
    one.join();
    two.join();
    CHECK(torn == 0);
    CHECK_FALSE(failures[0]);
    CHECK_FALSE(failures[1]);
    CHECK(directory.names() == Names{"a"});
}

TEST_CASE("storage: an upload may be finished on another thread, after its store is gone") {
    const Directory directory;
    std::error_code error;
    std::optional<Upload> upload;
    {
        const Store store(directory.path());
        upload.emplace(store.begin(error));
    }
    std::thread([&] {
        error = upload->write("hello");
        if (!error) {
            error = upload->finish("a");
        }
    }).join();
    CHECK_FALSE(error);
    CHECK(upload->sha256() == sha256_of_hello);
    CHECK(directory.contents("a") == "hello");
}

TEST_CASE("storage: an unsafe name is refused, and a safe one may follow") {
    const Directory outside;
    fs::create_directory(outside.at("inside"));
    const Store store(outside.path() + "/inside");
    std::error_code error;
    Upload upload = store.begin(error);
    CHECK_FALSE(upload.write("hello"));
    for (const std::string name : {"../x", "a/../../x", "", ".x", "C:\\x"}) {
        CHECK(upload.finish(name) == std::errc::invalid_argument);
    }
    CHECK(fs::is_empty(outside.at("inside")));
    CHECK(outside.names() == Names{"inside"});
    CHECK_FALSE(upload.finish("%2e%2e"));
    CHECK(outside.contents("inside/%2e%2e") == "hello");
    CHECK(upload.finish("b") == std::errc::bad_file_descriptor);
    CHECK(upload.write("more") == std::errc::bad_file_descriptor);
    CHECK(get(store, "%2e%2e") == "hello");
}

TEST_CASE("storage: reading leads nowhere but to regular files of the directory") {
    const Directory outside;
    const Directory directory;
    const Store store(directory.path());
    outside.put("secret", "secret");
    directory.put(".hidden", "hidden");
    directory.put("plain", "plain");
    fs::create_directory(directory.at("sub"));
    fs::create_symlink(outside.at("secret"), directory.at("absolute"));
    fs::create_symlink("../" + fs::path(outside.path()).filename().string() + "/secret",
                       directory.at("relative"));
    fs::create_symlink("plain", directory.at("inside"));
    fs::create_symlink("nowhere", directory.at("dangling"));
    REQUIRE(::mkfifo(directory.at("pipe").c_str(), 0600) == 0);
    const auto check_all = [](const auto& open) {
        for (const std::string name : {"absolute", "relative", "inside", "dangling"}) {
            INFO("link " << name);
            CHECK(open(name) == std::errc::too_many_symbolic_link_levels);
        }
        CHECK(open("sub") == std::errc::is_a_directory);
        CHECK(open("pipe") == std::errc::not_supported); // and does not wait for a writer
        CHECK(open("nothing") == std::errc::no_such_file_or_directory);
        CHECK(open("%2e%2e") == std::errc::no_such_file_or_directory);
        for (const std::string name : {"../x", "a/../../x", "..", ".", "", "/etc/passwd", "sub/x",
                                       ".hidden", "./plain", "sub\\plain", "plain/"}) {
            INFO("name " << name);
            CHECK(open(name) == std::errc::invalid_argument);
        }
        CHECK(open("plain\0"s) == std::errc::invalid_argument);
        CHECK_FALSE(open("plain"));
    };
    SECTION("by openat2, or what there is") {
        check_all([&](const std::string& name) {
            std::error_code error;
            static_cast<void>(store.open(name, error));
            return error;
        });
        CHECK(error_of_open(store, "absolute"));
    }
    for (const int error : {ENOSYS, EPERM}) {
        DYNAMIC_SECTION("without openat2: errno " << error) {
            fresh().faults["open_beneath"] = {error};
            const FaultyStore faulty(directory.path());
            check_all([&](const std::string& name) {
                std::error_code code;
                static_cast<void>(faulty.open(name, code));
                return code;
            });
            CHECK(FaultyFileSystem::state.calls["open_component"] > 0);
        }
    }
}

TEST_CASE("storage: the kernel itself holds a name within the directory") {
    const Directory outside;
    const Directory directory;
    outside.put("secret", "secret");
    fs::create_directory_symlink(outside.path(), directory.at("link"));
    const reactor::os::Fd fd(FileSystem::open_directory(directory.path().c_str()).fd());
    const Result up = FileSystem::open_beneath(fd.get(), "../");
    if (up.error == ENOSYS || up.error == EPERM) {
        WARN("There is no openat2 here: this asserts only that its absence is told.");
        CHECK_FALSE(up.ok());
        return;
    }
    CHECK(up.error == EXDEV);
    CHECK(FileSystem::open_beneath(fd.get(), "/etc/passwd").error == EXDEV);
    CHECK(FileSystem::open_beneath(fd.get(), "link/secret").error == ELOOP);
}

TEST_CASE("storage: a symbolic link of the name is replaced, not followed") {
    const Directory outside;
    const Directory directory;
    const Store store(directory.path());
    outside.put("victim", "untouched");
    fs::create_symlink(outside.at("victim"), directory.at("a"));
    put(store, "a", "new");
    CHECK(outside.contents("victim") == "untouched");
    CHECK_FALSE(fs::is_symlink(directory.at("a")));
    CHECK(get(store, "a") == "new");
}

TEST_CASE("storage: a directory of the name is not replaced, and nothing else is left") {
    const Directory directory;
    const Store store(directory.path());
    fs::create_directory(directory.at("a"));
    {
        std::error_code error;
        Upload upload = store.begin(error);
        CHECK(upload.finish("a") == std::errc::is_a_directory);
        CHECK(upload.finish("b") == std::errc::is_a_directory); // it stays with its error
    }
    CHECK(directory.names() == Names{"a"});
    CHECK(fs::is_directory(directory.at("a")));
}

TEST_CASE("storage: a directory that is none, or has gone, is an error") {
    const Directory directory;
    directory.put("file", "");
    CHECK_THROWS_AS(Store(directory.path() + "/none"), std::system_error);
    CHECK_THROWS_AS(Store(directory.path() + "/file"), std::system_error);
    const Store store(directory.path());
    fs::remove_all(directory.path());
    std::error_code error;
    Upload upload = store.begin(error);
    if (!error) {
        error = upload.finish("a");
    }
    CHECK(error); // ENOENT, or EPERM as some file systems have it
    CHECK(error_of_open(store, "a") == std::errc::no_such_file_or_directory);
}

TEST_CASE("storage: without unnamed files an upload has a name that nobody can ask for") {
    const Directory directory;
    fresh();
    auto& state = FaultyFileSystem::state;
    // The file system has none, the kernel has none, they could not be named later.
    const std::pair<std::string, int> whys[] = {
        {"open_unnamed", EOPNOTSUPP}, {"open_unnamed", EISDIR}, {"can_link_unnamed", ENOENT}};
    const auto& [call, why] = whys[GENERATE(0U, 1U, 2U)];
    INFO(call << " fails with errno " << why);
    state.faults[call] = {why};
    const FaultyStore store(directory.path());
    const std::size_t descriptors = open_descriptors();
    state.random = 0;
    directory.put(".upload-0000000000000000", "another's"); // the first that is tried
    const std::string used = ".upload-0000000000000001";
    std::error_code error;
    {
        auto upload = store.begin(error);
        REQUIRE_FALSE(error);
        CHECK_FALSE(upload.write("gone"));
        CHECK(directory.names() == Names{".upload-0000000000000000", used});
        static_cast<void>(store.open(used, error));
        CHECK(error == std::errc::invalid_argument);
        auto moved = std::move(upload);
        CHECK_FALSE(moved.write("gone"));
        CHECK(directory.names().size() == 2);
    }
    CHECK(directory.names() == Names{".upload-0000000000000000"});
    put(store, "a", "one");
    put(store, "a", "two");
    CHECK(directory.names() == Names{".upload-0000000000000000", "a"});
    CHECK(get(store, "a", error) == "two");
    CHECK(state.calls["unlink"] == 1); // of what was given up, not of what was renamed
    CHECK(directory.contents(".upload-0000000000000000") == "another's");
    CHECK(open_descriptors() == descriptors);
}

TEST_CASE("storage: whatever call fails, the error is told and nothing is left") {
    const Directory directory;
    const bool unnamed = GENERATE(true, false);
    const bool replaces = GENERATE(true, false);
    const Names before = replaces ? Names{"a"} : Names{};
    if (replaces) {
        directory.put("a", "old");
    }
    const auto fails = [&](const std::string& call, int error, int after) {
        INFO(call << " fails after " << after);
        auto& state = fresh();
        if (!unnamed) {
            state.faults["open_unnamed"] = {EOPNOTSUPP};
        }
        state.faults[call] = {error, after};
        const FaultyStore store(directory.path(), true);
        const std::size_t descriptors = open_descriptors();
        bool told = false;
        {
            std::error_code code;
            auto upload = store.begin(code);
            for (int n = 0; n < 3 && !code; ++n) {
                code = upload.write(std::string(20'000, 'x'));
            }
            if (!code) {
                code = upload.finish("a");
            }
            told = code.value() == error;
            if (code) {
                CHECK(upload.write("more") == code); // it stays with its error
                CHECK(upload.finish("b") == code);
            }
        }
        CHECK(open_descriptors() == descriptors);
        if (!told) {
            CHECK(state.calls[call] <= after); // the call is not made so often
            fs::remove(directory.at("a"));
            if (replaces) {
                directory.put("a", "old");
            }
            return false;
        }
        CHECK(directory.names() == before);
        CHECK((!replaces || directory.contents("a") == "old"));
        return true;
    };
    CHECK(fails("write", ENOSPC, 0));
    CHECK(fails("write", EIO, 2));
    CHECK_FALSE(fails("write", EIO, 3));
    CHECK(fails("synchronize", EIO, 0));
    CHECK(fails(unnamed ? "open_unnamed" : "create", EDQUOT, 0));
    CHECK(fails(unnamed ? "link_unnamed" : "rename", ENOSPC, 0));
    CHECK(fails("close", EDQUOT, 0));
    CHECK(fails("random", ENOSYS, 0) == (!unnamed || replaces));
    CHECK(fails("link_unnamed", EMLINK, 1) == (unnamed && replaces));
    CHECK(fails("rename", EXDEV, 0) == (!unnamed || replaces));
}

TEST_CASE("storage: what is to be durable is synchronized, and nothing else is") {
    const Directory directory;
    fresh();
    put(FaultyStore(directory.path(), false), "a", "hello");
    CHECK(FaultyFileSystem::state.calls["synchronize"] == 0);
    put(FaultyStore(directory.path(), true), "a", "hello");
    CHECK(FaultyFileSystem::state.calls["synchronize"] == 2);
    // If the directory cannot be, the file is there, but that is not promised.
    fresh().faults["synchronize"] = {EIO, 1};
    const FaultyStore store(directory.path(), true);
    std::error_code error;
    auto upload = store.begin(error);
    CHECK(upload.finish("b") == std::errc::io_error);
}

TEST_CASE("storage: short writes and reads go on, and one that moves nothing is an error") {
    const Directory directory;
    fresh().most = 3;
    const FaultyStore store(directory.path());
    put(store, "a", "hello, hello");
    CHECK(FaultyFileSystem::state.calls["write"] == 4);
    std::error_code error;
    CHECK(get(store, "a", error) == "hello, hello");
    CHECK(FaultyFileSystem::state.calls["read"] == 4);
    FaultyFileSystem::state.zero = true;
    auto upload = store.begin(error);
    CHECK_FALSE(upload.write("x")); // gathered
    CHECK(upload.finish("b") == std::errc::io_error);
    CHECK(directory.names() == Names{"a"});
}

TEST_CASE("storage: small pieces are gathered, and stand in the file in their order") {
    const Directory directory;
    fresh();
    const FaultyStore store(directory.path());
    std::error_code error;
    auto upload = store.begin(error);
    std::string text;
    const auto write = [&](std::size_t size) {
        const std::string piece(size, static_cast<char>('a' + text.size() % 26));
        error = upload.write(piece);
        text += piece;
        return !error;
    };
    bool written = true;
    for (int n = 0; n < 50'000; ++n) {
        written = written && write(1);
    }
    CHECK(written);
    CHECK(upload.size() == 50'000);
    CHECK(FaultyFileSystem::state.calls["write"] == 3);
    for (const std::size_t size : {0U, 16'383U, 16'384U, 1U, 100'000U, 5U, 16'379U, 1U, 40'000U}) {
        CHECK(write(size));
    }
    CHECK_FALSE(upload.finish("a"));
    CHECK(upload.size() == text.size());
    CHECK(get(store, "a", error) == text);
}

TEST_CASE("storage: reading tells of a device's error, and of a file that became shorter") {
    const Directory directory;
    fresh();
    const FaultyStore store(directory.path());
    put(store, "a", "hello");
    std::error_code error;
    std::array<std::byte, 5> space{};
    auto shrunk = store.open("a", error);
    fs::resize_file(directory.at("a"), 3);
    CHECK(shrunk.size() == 5);
    CHECK(shrunk.read(space) == std::errc::io_error);
    auto broken = store.open("a", error);
    FaultyFileSystem::state.faults["read"] = {ESTALE};
    CHECK(broken.read(space).value() == ESTALE);
    CHECK_FALSE(broken.read({}));
    FaultyFileSystem::state.faults["status"] = {EIO};
    const std::size_t descriptors = open_descriptors();
    static_cast<void>(store.open("a", error));
    CHECK(error == std::errc::io_error);
    CHECK(open_descriptors() == descriptors);
}

namespace {

/// What a child saw of a disk that is full.
struct FullDisk {
    int prepared = 0; ///< errno of what could not be prepared
    int write_error = 0;
    int next_error = 0;
    std::uint64_t size = 0;
    int left = -1;
    int later_error = -1;
};

/// Fills the store with one upload until it is refused, gives it up, and stores a small file.
FullDisk fill(const std::string& path) {
    FullDisk seen;
    const Store store(path);
    std::error_code error;
    {
        Upload upload = store.begin(error);
        const std::string piece(100'000, 'x');
        for (int n = 0; n < 100 && !error; ++n) {
            error = upload.write(piece);
        }
        seen.write_error = error.value();
        seen.next_error = upload.finish("big").value();
        seen.size = upload.size();
    }
    seen.left = static_cast<int>(std::distance(fs::directory_iterator(path), {}));
    Upload small = store.begin(error);
    small.write("hello");
    seen.later_error = small.finish("small").value();
    return seen;
}

/// Mounts a disk of 1 MB for this process alone. Who is not root becomes it in a namespace.
int mount_small_disk(const std::string& at) {
    const std::string user = "0 " + std::to_string(::geteuid()) + " 1";
    const std::string group = "0 " + std::to_string(::getegid()) + " 1";
    const bool root = ::geteuid() == 0;
    if (::unshare(root ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) != 0) {
        return errno;
    }
    if (!root) {
        std::ofstream("/proc/self/setgroups") << "deny";
        std::ofstream("/proc/self/uid_map") << user;
        std::ofstream("/proc/self/gid_map") << group;
    }
    const bool mounted = ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         ::mount("tmpfs", at.c_str(), "tmpfs", 0, "size=1m") == 0;
    return mounted ? 0 : errno;
}

/// Runs `prepare` (an errno) and then fill in a child, so that nothing of this process changes.
template <class Prepare>
FullDisk fill_in_child(const std::string& path, Prepare prepare) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        FullDisk seen;
        seen.prepared = prepare();
        if (seen.prepared == 0) {
            seen = fill(path);
        }
        const bool written = ::write(ends[1], &seen, sizeof seen) == sizeof seen;
        ::_exit(written ? 0 : 1);
    }
    ::close(ends[1]);
    FullDisk seen;
    const test::Calm calm;
    const bool read = ::read(ends[0], &seen, sizeof seen) == sizeof seen;
    ::close(ends[0]);
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
    REQUIRE(read);
    return seen;
}

} // namespace

TEST_CASE("storage: a full disk refuses the upload, keeps nothing of it, and takes what fits") {
    const Directory directory;
    const FullDisk seen =
        fill_in_child(directory.path(), [&] { return mount_small_disk(directory.path()); });
    if (seen.prepared != 0) {
        WARN("A disk of 1 MB could not be mounted (" << std::strerror(seen.prepared)
                                                     << "): only a made-up ENOSPC is tested here.");
        fresh().faults["write"] = {ENOSPC, 10};
        const FaultyStore store(directory.path());
        std::error_code error;
        auto upload = store.begin(error);
        while (!error) {
            error = upload.write("piece");
        }
        CHECK(error == std::errc::no_space_on_device);
        CHECK(directory.names().empty());
        return;
    }
    CHECK(seen.write_error == ENOSPC);
    CHECK(seen.next_error == ENOSPC);
    CHECK(seen.size > 500'000);
    CHECK(seen.size <= 1'048'576);
    CHECK(seen.left == 0);
    CHECK(seen.later_error == 0);
}

TEST_CASE("storage: at the limit of a file's size the rest of a short write is told as EFBIG") {
    const Directory directory;
    const FullDisk seen = fill_in_child(directory.path(), [] {
        std::signal(SIGXFSZ, SIG_IGN); // as a server must that has such a limit
        const rlimit limit{250'000, 250'000};
        return ::setrlimit(RLIMIT_FSIZE, &limit) == 0 ? 0 : errno;
    });
    CHECK(seen.prepared == 0);
    CHECK(seen.write_error == EFBIG);
    CHECK(seen.size == 200'000); // of the third piece a half had room
    CHECK(seen.left == 0);
    CHECK(seen.later_error == 0);
}
