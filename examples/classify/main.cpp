// classify NETWORK IMAGE...: names what a trained network sees in JPEG and PNG files, with the installed libraries.
// NETWORK is a run (runs/NAME), a checkpoint, PyTorch's weights or an ONNX file; docs/api.md explains what is used here.
#include <retort/distill/prediction.h>

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: classify NETWORK IMAGE...\n");
    return 2;
  }
  try {
    retort::PredictionRequest request;
    request.network.options.path = argv[1];
    request.top = 1;
    const retort::Predictor predictor(request);
    bool all_read = true;
    predictor.run(
        retort::find_images({argv + 2, argv + argc}),
        [&](const retort::Prediction& found) {
          const retort::Guess& guess = found.best.front();
          std::printf("%s: %s, %.1f %%\n", found.file.c_str(), predictor.class_name(guess.number).c_str(),
                      100 * guess.probability);
        },
        [&](const std::string& error) {
          std::fprintf(stderr, "%s\n", error.c_str());
          all_read = false;
        });
    return all_read ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
