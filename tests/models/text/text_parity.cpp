// The text half of a pipeline from the command line, for the comparison with transformers:
//   text_parity clip-ids|t5-ids|qwen-ids FOLDER MAX_LENGTH PROMPTS.jsonl
//       prompts as JSON strings, one a line; prints JSON lines
//   text_parity qwen-image-ids|z-image-ids FOLDER MAX_FEATURES PROMPTS.jsonl   with the pipeline's chat template
//   text_parity clip|t5|qwen-last|qwen-second-to-last FOLDER INPUT.safetensors OUTPUT.safetensors DTYPE   input: ids
//   text_parity qwen-image|z-image FOLDER PROMPTS.jsonl OUTPUT.safetensors DTYPE
//       FOLDER/tokenizer and FOLDER/text_encoder; output: the features of every prompt, by its number

#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "linear/tensor_file.h"
#include "models/text/clip_text_model.h"
#include "models/text/clip_tokenizer.h"
#include "models/text/qwen_prompt.h"
#include "models/text/qwen_text_model.h"
#include "models/text/qwen_tokenizer.h"
#include "models/text/t5_encoder.h"
#include "models/text/t5_tokenizer.h"

namespace rtlynx::tests {
namespace {

std::vector<std::string> read_prompts(const std::string& path) {
  std::ifstream lines(path);
  std::vector<std::string> prompts;
  for (std::string line; std::getline(lines, line);) prompts.push_back(nlohmann::json::parse(line));
  return prompts;
}

using Encode = std::function<models::TokenIds(const std::string& prompt, int64_t max_length)>;

template <class Tokenizer>
Encode encoder_of(const std::string& folder) {
  return [tokenizer = std::make_shared<Tokenizer>(folder)](const std::string& prompt, int64_t max_length) {
    return tokenizer->encode(prompt, max_length);
  };
}

template <const models::PromptFormat& kFormat>
Encode encoder_of_format(const std::string& folder) {
  return [tokenizer = std::make_shared<models::QwenTokenizer>(folder)](const std::string& prompt, int64_t max_length) {
    return models::prompt_ids(kFormat, *tokenizer, prompt, max_length);
  };
}

const std::map<std::string, Encode (*)(const std::string& folder)> kTokenizers = {
    {"clip-ids", encoder_of<models::ClipTokenizer>},
    {"t5-ids", encoder_of<models::T5Tokenizer>},
    {"qwen-ids", encoder_of<models::QwenTokenizer>},
    {"qwen-image-ids", encoder_of_format<models::kQwenImagePrompt>},
    {"z-image-ids", encoder_of_format<models::kZImagePrompt>}};

int print_ids(const Encode& encode, int64_t max_length, const std::string& prompts) {
  for (const std::string& prompt : read_prompts(prompts)) {
    const models::TokenIds tokens = encode(prompt, max_length);
    const nlohmann::json result = {{"ids", tokens.ids}, {"dropped", tokens.tokens_dropped}};
    std::printf("%s\n", result.dump().c_str());
  }
  return 0;
}

using TensorMap = std::map<std::string, at::Tensor>;

TensorMap run_model(const std::string& model, const std::string& folder, const std::string& input,
                    const Placement& placement) {
  const at::Tensor ids = read_tensor_file(input).tensors.at("ids");
  if (model == "clip") {
    const models::ClipTextOutput out = models::ClipTextModel::load(folder, placement)(ids);
    return {{"last_hidden_state", out.last_hidden_state}, {"pooled", out.pooled}};
  }
  if (model == "t5") return {{"last_hidden_state", models::T5Encoder::load(folder, placement)(ids)}};
  const auto state = model == "qwen-last" ? models::HiddenState::kLast : models::HiddenState::kSecondToLast;
  return {{"hidden_state", models::QwenTextModel::load(folder, placement, state)(ids)}};
}

TensorMap run_prompts(const models::PromptFormat& format, const std::filesystem::path& folder,
                      const std::string& prompts, const Placement& placement) {
  const models::QwenTokenizer tokenizer(folder / "tokenizer");
  const auto encoder = models::QwenTextModel::load(folder / "text_encoder", placement, format.hidden_state);
  TensorMap result;
  for (const std::string& prompt : read_prompts(prompts)) {
    const models::TokenIds ids = models::prompt_ids(format, tokenizer, prompt, format.max_features);
    result.emplace(std::to_string(result.size()), models::prompt_features(format, encoder, ids));
  }
  return result;
}

int run(const std::vector<std::string>& arguments) {
  const std::string& what = arguments.at(1);
  if (const auto found = kTokenizers.find(what); found != kTokenizers.end()) {
    return print_ids(found->second(arguments.at(2)), std::atoll(arguments.at(3).c_str()), arguments.at(4));
  }
  const c10::InferenceMode inference;
  const std::map<std::string, at::ScalarType> dtypes = {
      {"fp32", at::kFloat}, {"bf16", at::kBFloat16}, {"fp16", at::kHalf}};
  const Placement placement = {at::kCPU, dtypes.at(arguments.at(5))};
  const bool is_pipeline = what == "qwen-image" || what == "z-image";
  const auto& format = what == "qwen-image" ? models::kQwenImagePrompt : models::kZImagePrompt;
  TensorMap result = is_pipeline ? run_prompts(format, arguments.at(2), arguments.at(3), placement)
                                 : run_model(what, arguments.at(2), arguments.at(3), placement);
  for (auto& [name, tensor] : result) tensor = tensor.to(at::kFloat).contiguous();
  write_tensor_file(arguments.at(4), {result, {}});
  return 0;
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
