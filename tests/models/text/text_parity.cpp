// The text half of a pipeline from the command line, for the comparison with transformers:
//   text_parity clip-ids|t5-ids FOLDER MAX_LENGTH PROMPTS.jsonl       prompts as JSON strings, one a line; prints JSON
//   lines text_parity clip|t5 FOLDER INPUT.safetensors OUTPUT.safetensors DTYPE   input: ids

#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "linear/tensor_file.h"
#include "models/text/clip_text_model.h"
#include "models/text/clip_tokenizer.h"
#include "models/text/t5_encoder.h"
#include "models/text/t5_tokenizer.h"

namespace rtlynx::tests {
namespace {

template <class Tokenizer>
int print_ids(const std::string& folder, int64_t max_length, const std::string& prompts) {
  const Tokenizer tokenizer(folder);
  std::ifstream lines(prompts);
  for (std::string line; std::getline(lines, line);) {
    const models::TokenIds tokens = tokenizer.encode(nlohmann::json::parse(line).get<std::string>(), max_length);
    const nlohmann::json result = {{"ids", tokens.ids}, {"dropped", tokens.tokens_dropped}};
    std::printf("%s\n", result.dump().c_str());
  }
  return 0;
}

int run_model(const std::string& model, const std::string& folder, const std::string& input, const std::string& output,
              const std::string& dtype) {
  const c10::InferenceMode inference;
  const std::map<std::string, at::ScalarType> dtypes = {
      {"fp32", at::kFloat}, {"bf16", at::kBFloat16}, {"fp16", at::kHalf}};
  const Placement placement = {at::kCPU, dtypes.at(dtype)};
  const at::Tensor ids = read_tensor_file(input).tensors.at("ids");
  std::map<std::string, at::Tensor> result;
  if (model == "clip") {
    const models::ClipTextOutput out = models::ClipTextModel::load(folder, placement)(ids);
    result = {{"last_hidden_state", out.last_hidden_state.to(at::kFloat)}, {"pooled", out.pooled.to(at::kFloat)}};
  } else {
    const auto encoder = models::T5Encoder::load(folder, placement);
    result = {{"last_hidden_state", encoder(ids).to(at::kFloat)}};
  }
  write_tensor_file(output, {result, {}});
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  const std::string& what = arguments.at(1);
  if (what == "clip-ids" || what == "t5-ids") {
    const int64_t max_length = std::atoll(arguments.at(3).c_str());
    const auto print = what == "clip-ids" ? print_ids<models::ClipTokenizer> : print_ids<models::T5Tokenizer>;
    return print(arguments.at(2), max_length, arguments.at(4));
  }
  return run_model(what, arguments.at(2), arguments.at(3), arguments.at(4), arguments.at(5));
}

}  // namespace
}  // namespace rtlynx::tests

int main(int argc, char** argv) {
  try {
    return rtlynx::tests::run({argv, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
