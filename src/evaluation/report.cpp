#include "evaluation/report.h"

#include <fmt/format.h>

namespace rtlynx::evaluation {

std::string to_markdown(const AblationResult& result, const std::string& heading) {
  std::string text = heading;
  text += "| mode | prompt accuracy | Frechet distance | PSNR to dense, dB | ms per step and picture |\n";
  text += "|---|---|---|---|---|\n";
  for (const MethodResult& row : result.methods) {
    text += fmt::format("| {} | {:.1f} % | {:.3f} | {} | {:.1f} |\n", row.name, 100 * row.accuracy, row.frechet,
                        row.psnr ? fmt::format("{:.2f}", *row.psnr) : "-", 1000 * row.seconds_per_step);
  }
  return text;
}

std::string to_csv(const AblationResult& result) {
  std::string text = "mode,prompt_accuracy,frechet_distance,psnr_to_dense_db,seconds_per_step_and_picture";
  for (const auto& head : kHeadNames) text += fmt::format(",accuracy_{}", head);
  text += "\n";
  for (const MethodResult& row : result.methods) {
    text += fmt::format("{},{:.6f},{:.6f},{},{:.6f}", row.name, row.accuracy, row.frechet,
                        row.psnr ? fmt::format("{:.4f}", *row.psnr) : "", row.seconds_per_step);
    for (const double share : row.per_head) text += fmt::format(",{:.6f}", share);
    text += "\n";
  }
  return text;
}

nlohmann::json to_json(const AblationResult& result) {
  nlohmann::json rows = nlohmann::json::array();
  for (const MethodResult& row : result.methods) {
    nlohmann::json entry = {{"mode", row.name},
                            {"prompt_accuracy", row.accuracy},
                            {"frechet_distance", row.frechet},
                            {"seconds_per_step_and_picture", row.seconds_per_step}};
    if (row.psnr) entry["psnr_to_dense_db"] = *row.psnr;
    for (std::size_t head = 0; head < kNumHeads; ++head) {
      entry["accuracy_per_head"][std::string(kHeadNames[head])] = row.per_head[head];
    }
    rows.push_back(std::move(entry));
  }
  return rows;
}

}  // namespace rtlynx::evaluation
