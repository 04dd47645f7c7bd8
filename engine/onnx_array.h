// For the ONNX reader: arrays out of protobuf messages. Not part of the public interface.
#pragma once

#include <onnx/onnx_pb.h>

#include <string>

#include "engine/onnx_file.h"

namespace retort {

// `what` begins errors; `folder` is where external data may lie, or "" where there may be none. Takes the bytes out of
// `message`, so that a large network is not held twice.
OnnxArray onnx_array(::onnx::TensorProto& message, const std::string& what, const std::string& folder);
OnnxType onnx_type(int data_type);

}  // namespace retort
