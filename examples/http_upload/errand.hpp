// SPDX-License-Identifier: Apache-2.0
//
// http_upload: what one connection wants of the disk in one go, as a value.
//
// An Errand is made in the loop, run once wherever it may block, and comes back with what came of
// it. A Writing gathers what a body says (a file begins, its bytes, its end) and takes the file
// that is open along, so that at each moment only one has it; a Reading opens a file, or reads on
// in it. Neither knows of threads. An errand that goes takes its file with it: of an upload nothing
// is left then, and the last one to close a large file that has no name waits for the disk.
#pragma once

#include "storage.hpp"

#include <reactor/buffer.hpp>

#include <algorithm>
#include <cassert>
#include <variant>
#include <vector>

namespace http_upload {

/// A file that has its name.
struct StoredFile {
    std::string name;
    std::uint64_t size = 0;
    std::string sha256;
};

/// Files that are written, one after the other.
template <class System>
class BasicWriting {
  public:
    /// A new file of this name.
    void begin(std::string name) { steps_.push_back({Kind::begin, 0, std::move(name)}); }
    /// More of the file that is open, copied. Precondition: one is.
    void write(std::string_view bytes) {
        bytes_ += bytes;
        if (steps_.empty() || steps_.back().kind != Kind::write) {
            steps_.push_back({Kind::write, 0, {}});
        }
        steps_.back().size += bytes.size();
    }
    /// The file that is open is whole: it is digested and gets its name.
    void finish() {
        steps_.push_back({Kind::finish, 0, {}});
        finishes_ = true;
    }

    /// Whether there is something to do.
    [[nodiscard]] bool has_steps() const noexcept { return !steps_.empty(); }
    /// Whether it is worth the way: a client may send its bytes one by one.
    [[nodiscard]] bool is_worth_while() const noexcept {
        constexpr std::size_t enough = 16 * 1024;
        return finishes_ || bytes_.size() >= enough;
    }
    /// Bytes that are to be written.
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    /// Whether it has a file that is not whole.
    [[nodiscard]] bool is_open() const noexcept { return upload_.has_value(); }

    /// Does it all, or goes as far as it can: see error(). Once. Blocks.
    void run(const BasicStore<System>& store) {
        std::string_view rest = bytes_;
        for (Step& step : std::exchange(steps_, {})) {
            take(step, rest, store);
            if (error_) {
                upload_.reset();
                return;
            }
        }
    }

    /// What went wrong with the file `name()`; then no file is open.
    [[nodiscard]] std::error_code error() const noexcept { return error_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// What was finished.
    [[nodiscard]] const std::vector<StoredFile>& stored() const noexcept { return stored_; }
    /// Goes on with the file that `previous` had open.
    void go_on_from(BasicWriting&& previous) {
        assert(!upload_);
        upload_ = std::move(previous.upload_);
        previous.upload_.reset();
        name_ = std::move(previous.name_);
    }

  private:
    enum class Kind : std::uint8_t { begin, write, finish };
    struct Step {
        Kind kind;
        std::size_t size; ///< of a write
        std::string name; ///< of a begin
    };

    void take(Step& step, std::string_view& rest, const BasicStore<System>& store) {
        switch (step.kind) {
        case Kind::begin:
            name_ = std::move(step.name);
            upload_.emplace(store.begin(error_));
            break;
        case Kind::write:
            error_ = upload_->write(rest.substr(0, step.size));
            rest.remove_prefix(step.size);
            break;
        case Kind::finish:
            error_ = upload_->finish(name_);
            if (!error_) {
                stored_.push_back({name_, upload_->size(), upload_->sha256()});
                upload_.reset();
            }
            break;
        }
    }

    std::vector<Step> steps_;
    std::string bytes_; ///< of all writes, in their order
    bool finishes_ = false;
    std::optional<BasicUpload<System>> upload_;
    std::string name_; ///< of the file that is open, or was last
    std::vector<StoredFile> stored_;
    std::error_code error_;
};

/// A file that is read, piece by piece.
template <class System>
class BasicReading {
  public:
    /// `with_bytes`: false if only its size is asked for.
    BasicReading(std::string name, bool with_bytes)
        : name_(std::move(name)), with_bytes_(with_bytes) {}

    /// Opens the file if it is not open, and reads the next piece: see error(). Behind the last one
    /// the file is closed. Blocks.
    void run(const BasicStore<System>& store) {
        if (!file_) {
            auto file = store.open(name_, error_);
            if (error_) {
                return;
            }
            size_ = file.size();
            left_ = with_bytes_ ? size_ : 0;
            file_.emplace(std::move(file));
        }
        piece_ = reactor::Buffer::uninitialized(
            static_cast<std::size_t>(std::min<std::uint64_t>(left_, piece_size)));
        error_ = file_->read(piece_.writable());
        left_ -= piece_.size();
        if (left_ == 0) {
            file_.reset();
        }
    }

    /// Whether it has a file that is not read to its end.
    [[nodiscard]] bool is_open() const noexcept { return file_.has_value(); }
    [[nodiscard]] std::error_code error() const noexcept { return error_; }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// Of the whole file, once it was opened.
    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    /// What was read; empty if nothing was left.
    [[nodiscard]] reactor::Buffer take_piece() noexcept { return std::move(piece_); }
    /// Bytes that are still to be read.
    [[nodiscard]] std::uint64_t left() const noexcept { return left_; }

  private:
    static constexpr std::uint64_t piece_size = 64 * 1024;

    std::string name_;
    bool with_bytes_;
    std::optional<BasicStoredForReading<System>> file_;
    std::uint64_t size_ = 0;
    std::uint64_t left_ = 0;
    reactor::Buffer piece_;
    std::error_code error_;
};

template <class System>
using BasicErrand = std::variant<BasicWriting<System>, BasicReading<System>>;

/// Whether it has a file, which should not be closed where nothing may block.
template <class System>
[[nodiscard]] bool is_open(const BasicErrand<System>& errand) noexcept {
    const auto* const writing = std::get_if<0>(&errand);
    return writing != nullptr ? writing->is_open() : std::get_if<1>(&errand)->is_open();
}

} // namespace http_upload
