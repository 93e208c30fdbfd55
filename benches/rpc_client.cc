// A gRPC client that sends messages made beforehand and keeps every answer with its latency: what the benches use where a
// Python client would be the slower side. Unary calls of raw bytes, a fixed number in flight, one thread.
//
// It reads one round a line and answers with a line:
//
//     <address> <path> <in flight> <file of messages> <file for answers>      ->  <began ns> <ended ns> <failed>
//
//     messages  | size u32 | bytes | …
//     answers   | size u32 | code u32 | sent ns u64 | latency ns u64 | bytes | …       in the order of the messages
//
// Times are those of CLOCK_MONOTONIC. A channel is kept for each address, so that a round finds it connected.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

uint64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

struct Call {
    size_t number;
    uint64_t sent_ns;
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
    grpc::Status status;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
};

struct Answer {
    uint32_t code = 0;
    uint64_t sent_ns = 0;
    uint64_t latency_ns = 0;
    grpc::ByteBuffer reply;
};

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

bool write_answers(const std::string &path, const std::vector<Answer> &answers) {
    std::ofstream file(path, std::ios::binary);
    for (const Answer &answer : answers) {
        std::vector<grpc::Slice> slices;
        uint32_t size = 0;
        if (answer.code == 0) {
            (void)answer.reply.Dump(&slices);
            size = static_cast<uint32_t>(answer.reply.Length());
        }
        file.write(reinterpret_cast<const char *>(&size), sizeof size);
        file.write(reinterpret_cast<const char *>(&answer.code), sizeof answer.code);
        file.write(reinterpret_cast<const char *>(&answer.sent_ns), sizeof answer.sent_ns);
        file.write(reinterpret_cast<const char *>(&answer.latency_ns), sizeof answer.latency_ns);
        for (const grpc::Slice &slice : slices) {
            file.write(reinterpret_cast<const char *>(slice.begin()), static_cast<std::streamsize>(slice.size()));
        }
    }
    return file.good();
}

class Round {
  public:
    Round(grpc::GenericStub *stub, std::string path, std::vector<grpc::ByteBuffer> messages)
        : stub_(stub), path_(std::move(path)), messages_(std::move(messages)), answers_(messages_.size()) {}

    size_t run(size_t in_flight) {
        while (sent_ < messages_.size() && sent_ < in_flight) send();
        size_t failed = 0;
        void *tag;
        bool ok;
        for (size_t left = messages_.size(); left > 0; left--) {
            queue_.Next(&tag, &ok);
            std::unique_ptr<Call> call(static_cast<Call *>(tag));
            Answer &answer = answers_[call->number];
            answer.latency_ns = now_ns() - call->sent_ns;
            answer.sent_ns = call->sent_ns;
            answer.code = static_cast<uint32_t>(call->status.error_code());
            answer.reply = std::move(call->reply);
            if (answer.code != 0 && failed++ == 0) std::cerr << call->status.error_message() << std::endl;
            if (sent_ < messages_.size()) send();
        }
        queue_.Shutdown();
        while (queue_.Next(&tag, &ok)) {
        }
        return failed;
    }

    const std::vector<Answer> &answers() const { return answers_; }

  private:
    void send() {
        auto *call = new Call;
        call->number = sent_;
        call->sent_ns = now_ns();
        call->reader = stub_->PrepareUnaryCall(&call->context, path_, messages_[sent_], &queue_);
        call->reader->StartCall();
        call->reader->Finish(&call->reply, &call->status, call);
        sent_++;
    }

    grpc::GenericStub *stub_;
    std::string path_;
    std::vector<grpc::ByteBuffer> messages_;
    std::vector<Answer> answers_;
    grpc::CompletionQueue queue_;
    size_t sent_ = 0;
};

}  // namespace

int main() {
    std::map<std::string, std::shared_ptr<grpc::Channel>> channels;
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string address, path, messages_path, answers_path;
        size_t in_flight;
        if (!(words >> address >> path >> in_flight >> messages_path >> answers_path)) {
            std::cerr << "a round is: address path in-flight messages answers" << std::endl;
            return 2;
        }
        auto &channel = channels[address];
        if (!channel) {
            grpc::ChannelArguments arguments;
            arguments.SetMaxReceiveMessageSize(-1);
            channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
        }
        if (!channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10))) {
            std::cerr << "no server at " << address << std::endl;
            return 1;
        }
        grpc::GenericStub stub(channel);
        Round round(&stub, path, read_messages(messages_path));
        const uint64_t began = now_ns();
        const size_t failed = round.run(in_flight);
        const uint64_t ended = now_ns();
        if (!write_answers(answers_path, round.answers())) {
            std::cerr << "can't write " << answers_path << std::endl;
            return 1;
        }
        std::cout << began << ' ' << ended << ' ' << failed << std::endl;
    }
    return 0;
}
