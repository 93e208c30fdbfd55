// A gRPC client for `make overload`: calls of several kinds over many connections, each sent when it is due, whatever became
// of those before it. It keeps to the contract of a refusal or, asked to, is deaf to it.
//
// Its arguments are the paths of the kinds. It reads one round a line and answers with a line:
//
//     <address> <connections> <timeout ms> <deaf 0|1> <in flight> <messages> <schedule> <answers>   ->  <began ns> <ended ns>
//
//     messages  | size u32 | bytes | …
//     schedule  | due us u32 | message u32 | connection u16 | kind u16 | …
//     answers   | latency us u32 | sent late by us u32 | outcome u32 | …         in the order of the schedule
//
// In flight 0: each call is sent when it is due, and its latency counts from then. Else so many are kept under way, as fast
// as they are answered, until the last one's due instant; what was not sent then is NOT_SENT.
//
// A connection that was refused holds calls of that kind back until the advice has passed, and then until one has been
// answered: HELD_BACK.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

// So many calls an access server keeps under way; it holds the others back.
constexpr size_t UNDER_WAY_MAX = 128;

// For how long a connection holds a kind back that the transport had no room for, which gives no advice.
constexpr uint64_t UNAVAILABLE_NS = 500'000'000;

enum Outcome : uint32_t { ANSWERED, HELD_BACK, REFUSED, EXPIRED, UNAVAILABLE, OTHER, NOT_SENT };

struct Due {
    uint32_t due_us;
    uint32_t message;
    uint16_t connection;
    uint16_t kind;
};

struct Answer {
    uint32_t latency_us = 0;
    uint32_t late_us = 0;
    uint32_t outcome = NOT_SENT;
};

// Whether a connection holds a kind back: 0, no; else until then, and after that one call asks whether others may follow.
struct Held {
    std::atomic<uint64_t> until_ns{0};
    std::atomic<bool> asking{false};
};

struct Call {
    size_t number;
    uint64_t from_ns;
    bool first;
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    grpc::Status status;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

uint64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

std::vector<grpc::ByteBuffer> read_messages(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<grpc::ByteBuffer> messages;
    uint32_t size;
    while (file.read(reinterpret_cast<char *>(&size), sizeof size)) {
        std::string bytes(size, '\0');
        if (!file.read(bytes.data(), size)) break;
        grpc::Slice slice(bytes);
        messages.emplace_back(&slice, 1);
    }
    return messages;
}

std::vector<Due> read_schedule(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<Due> schedule;
    Due due;
    while (file.read(reinterpret_cast<char *>(&due), sizeof due)) schedule.push_back(due);
    return schedule;
}

uint64_t read_varint(const std::string &bytes, size_t &at) {
    uint64_t value = 0;
    for (int shift = 0; at < bytes.size() && shift < 64; shift += 7) {
        const auto byte = static_cast<uint8_t>(bytes[at++]);
        value |= static_cast<uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) break;
    }
    return value;
}

// The delay of the google.rpc.RetryInfo in the details of a status; 0: there is none.
uint64_t retry_after_ns(const std::string &details) {
    const std::string name = "google.rpc.RetryInfo";
    size_t at = details.find(name);
    if (at == std::string::npos) return 0;
    at += name.size();
    // Any.value, RetryInfo.retry_delay, and then the fields of the Duration.
    if (at + 4 > details.size() || details[at] != 0x12 || details[at + 2] != 0x0A) return 0;
    const size_t end = at + 4 + static_cast<uint8_t>(details[at + 3]);
    uint64_t delay_ns = 0;
    for (at += 4; at < end;) {
        const char tag = details[at++];
        delay_ns += read_varint(details, at) * (tag == 0x08 ? 1'000'000'000 : 1);
    }
    return delay_ns;
}

class Round {
  public:
    Round(std::vector<std::unique_ptr<grpc::GenericStub>> stubs, const std::vector<std::string> &paths,
          std::vector<grpc::ByteBuffer> messages, std::vector<Due> schedule, uint64_t timeout_ms, bool deaf)
        : stubs_(std::move(stubs)),
          paths_(paths),
          messages_(std::move(messages)),
          schedule_(std::move(schedule)),
          answers_(schedule_.size()),
          timeout_ms_(timeout_ms),
          deaf_(deaf),
          held_(stubs_.size() * paths_.size()),
          under_way_of_(stubs_.size()) {}

    void run_open() {
        for (size_t number = 0; number < schedule_.size(); number++) {
            const uint64_t due_ns = began_ns + schedule_[number].due_us * 1'000ull;
            uint64_t now = now_ns();
            if (now < due_ns) {
                std::this_thread::sleep_for(std::chrono::nanoseconds(due_ns - now));
                now = now_ns();
            }
            answers_[number].late_us = static_cast<uint32_t>((now - due_ns) / 1'000);
            send(number, due_ns, now);
        }
        wait_for_fewer_than(1);
    }

    void run_closed(size_t in_flight) {
        const uint64_t last_ns = began_ns + schedule_.back().due_us * 1'000ull;
        for (size_t number = 0; number < schedule_.size(); number++) {
            wait_for_fewer_than(in_flight);
            const uint64_t now = now_ns();
            if (now >= last_ns) break;
            send(number, now, now);
        }
        wait_for_fewer_than(1);
    }

    const uint64_t began_ns = now_ns();

    const std::vector<Answer> &answers() const { return answers_; }

    void end() {
        queue_.Shutdown();
        taker_.join();
    }

  private:
    Held &held_of(const Due &due) { return held_[due.connection * paths_.size() + due.kind]; }

    void wait_for_fewer_than(size_t count) {
        std::unique_lock<std::mutex> lock(mutex_);
        fewer_.wait(lock, [&] { return under_way_ < count; });
    }

    void send(size_t number, uint64_t from_ns, uint64_t now) {
        const Due &due = schedule_[number];
        bool first = false;
        if (!deaf_) {
            Held &held = held_of(due);
            const uint64_t until_ns = held.until_ns;
            if (under_way_of_[due.connection] >= UNDER_WAY_MAX || now < until_ns ||
                (until_ns > 0 && held.asking.exchange(true))) {
                answers_[number].outcome = HELD_BACK;
                return;
            }
            first = until_ns > 0;
        }
        under_way_of_[due.connection]++;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            under_way_++;
        }
        auto *call = new Call;
        call->number = number;
        call->from_ns = from_ns;
        call->first = first;
        call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms_));
        call->reader = stubs_[due.connection]->PrepareUnaryCall(&call->context, paths_[due.kind], messages_[due.message],
                                                                &queue_);
        call->reader->StartCall();
        call->reader->Finish(&call->reply, &call->status, call);
    }

    void take_all() {
        void *tag;
        bool ok;
        while (queue_.Next(&tag, &ok)) take(std::unique_ptr<Call>(static_cast<Call *>(tag)));
    }

    void take(std::unique_ptr<Call> call) {
        const uint64_t now = now_ns();
        Answer &answer = answers_[call->number];
        answer.latency_us = static_cast<uint32_t>((now - call->from_ns) / 1'000);
        switch (call->status.error_code()) {
            case grpc::OK: answer.outcome = ANSWERED; break;
            case grpc::RESOURCE_EXHAUSTED: answer.outcome = REFUSED; break;
            case grpc::DEADLINE_EXCEEDED: answer.outcome = EXPIRED; break;
            case grpc::CANCELLED:
            case grpc::UNAVAILABLE: answer.outcome = UNAVAILABLE; break;
            default:
                answer.outcome = OTHER;
                if (!deaf_ && others_++ < 3) std::cerr << call->status.error_code() << " " << call->status.error_message() << std::endl;
        }
        Held &held = held_of(schedule_[call->number]);
        if (answer.outcome == REFUSED) {
            held.until_ns = now + retry_after_ns(call->status.error_details());
        } else if (answer.outcome == UNAVAILABLE) {
            held.until_ns = now + UNAVAILABLE_NS;
        } else if (call->first) {
            held.until_ns = 0;
        }
        if (call->first) held.asking = false;
        std::lock_guard<std::mutex> lock(mutex_);
        under_way_of_[schedule_[call->number].connection]--;
        under_way_--;
        fewer_.notify_one();
    }

    std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
    const std::vector<std::string> &paths_;
    std::vector<grpc::ByteBuffer> messages_;
    std::vector<Due> schedule_;
    std::vector<Answer> answers_;
    const uint64_t timeout_ms_;
    const bool deaf_;
    std::vector<Held> held_;
    std::vector<std::atomic<size_t>> under_way_of_;
    grpc::CompletionQueue queue_;
    std::mutex mutex_;
    std::condition_variable fewer_;
    size_t under_way_ = 0;
    size_t others_ = 0;
    std::thread taker_{[this] { take_all(); }};
};

}  // namespace

int main(int count, char **words) {
    const std::vector<std::string> paths(words + 1, words + count);
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream parts(line);
        std::string address, messages, schedule, answers;
        size_t connections, in_flight;
        uint64_t timeout_ms;
        bool deaf;
        if (!(parts >> address >> connections >> timeout_ms >> deaf >> in_flight >> messages >> schedule >> answers)) {
            std::cerr << "a round is: address connections timeout deaf in-flight messages schedule answers" << std::endl;
            return 2;
        }
        std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
        for (size_t number = 0; number < connections; number++) {
            grpc::ChannelArguments arguments;
            // Else all of them would share one.
            arguments.SetInt("simswitch.connection", static_cast<int>(number));
            auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
            if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
                std::cerr << "no server at " << address << std::endl;
                return 1;
            }
            stubs.push_back(std::make_unique<grpc::GenericStub>(channel));
        }
        Round round(std::move(stubs), paths, read_messages(messages), read_schedule(schedule), timeout_ms, deaf);
        in_flight > 0 ? round.run_closed(in_flight) : round.run_open();
        const uint64_t ended_ns = now_ns();
        round.end();
        std::ofstream file(answers, std::ios::binary);
        file.write(reinterpret_cast<const char *>(round.answers().data()),
                   static_cast<std::streamsize>(round.answers().size() * sizeof(Answer)));
        if (!file.flush()) {
            std::cerr << "can't write " << answers << std::endl;
            return 1;
        }
        std::cout << round.began_ns << ' ' << ended_ns << std::endl;
    }
    return 0;
}
