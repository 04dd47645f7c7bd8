// What other people's networks call the arrays that ours have: the one table of names, for files of every format.
#pragma once

#include <functional>
#include <string>

namespace retort {

using KnownNames = std::function<bool(const std::string&)>;

// The name by which our networks know what is called `name` elsewhere: without wrappers in front ("module.", "model.",
// "0." and so on, in any order, repeated) and in torchvision's words; "" where no such name is `known`.
std::string our_name(const std::string& name, const KnownNames& known);

// Whether `known` holds for the first component ("layer1", "fc") of the name, in our words, with or without wrappers:
// an array that a network of this kind could have, though perhaps not this one.
bool begins_like_ours(const std::string& name, const KnownNames& known);

// "layer2.0.conv1.weight" as "layer..conv.weight": what is alike in networks that differ in depth.
std::string without_numbers(const std::string& name);

// A counter that no network needs to compute: num_batches_tracked, and what profilers leave in modules.
bool is_bookkeeping(const std::string& name);

// Whether the name lies in a student's half of a file ("module.student.conv1.weight"), or a teacher's.
bool of_student(const std::string& name);
bool of_teacher(const std::string& name);

}  // namespace retort
