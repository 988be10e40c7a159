#pragma once

#include <filesystem>

#include "linear/weights.h"
#include "models/autoencoder_kl.h"
#include "models/flow_match_euler_scheduler.h"
#include "models/flux_transformer.h"
#include "models/text/clip_text_model.h"
#include "models/text/clip_tokenizer.h"
#include "models/text/t5_encoder.h"
#include "models/text/t5_tokenizer.h"
#include "pipeline/validate.h"

namespace rtlynx::pipeline {

/// The seven parts of a FluxPipeline folder, loaded and checked against each other.
struct FluxComponents {
  Placement placement;
  models::ClipTokenizer tokenizer;
  models::T5Tokenizer tokenizer_2;
  models::ClipTextModel text_encoder;
  models::T5Encoder text_encoder_2;
  models::FluxTransformer2DModel transformer;
  models::AutoencoderKlDecoder vae;
  models::FlowMatchEulerScheduler scheduler;

  /// Throws kUnknownClass, kBadConfig where widths do not fit together, kInvalidArgument for a dtype other than fp32
  /// and bf16, and the loaders' codes.
  static FluxComponents load(const std::filesystem::path& model_folder, const Placement& placement);

  SizeRule size_rule() const;
};

}  // namespace rtlynx::pipeline
