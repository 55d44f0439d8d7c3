// A device "simulated" whose memory is the processor's. Every operation is computed there, but tensors of the two mix as
// little as those of a GPU and a processor do. PyTorch's name for devices of one's own is PrivateUse1.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense_cpu_dispatch.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_cpu_dispatch.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/native_batch_norm.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace {

using at::Tensor;
using Sizes = c10::IntArrayRef;
using SymSizes = c10::SymIntArrayRef;
constexpr auto SIMULATED = c10::DeviceType::PrivateUse1;

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    return {data, data, &std::free, c10::Device(SIMULATED, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(SIMULATED, &memory);

// One device with one stream, on which everything is done when it is asked for.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return SIMULATED; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {SIMULATED, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, getDevice()); }
  c10::Stream exchangeStream(c10::Stream) const override { return getStream(getDevice()); }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void init() const override {}
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return at::detail::getDefaultCPUGenerator(); }
};

// -- memory and views --------------------------------------------------------------------------------------------------

Tensor empty(Sizes sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>, std::optional<at::Device>,
             std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(type), format);
}

Tensor empty_strided(Sizes sizes, Sizes strides, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                     std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(sizes, strides, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(type));
}

const Tensor& resize(const Tensor& self, Sizes sizes, std::optional<at::MemoryFormat> format) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_sizes_contiguous(sizes);
  auto& storage = self.storage();
  const size_t bytes = (tensor->storage_offset() + tensor->numel()) * self.element_size();
  if (bytes > storage.nbytes()) {
    auto grown = memory.allocate(bytes);
    if (storage.nbytes()) std::memcpy(grown.get(), storage.data(), storage.nbytes());
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(grown));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  if (format && *format != at::MemoryFormat::Preserve && *format != at::MemoryFormat::Contiguous)
    tensor->empty_tensor_restride(*format);
  return self;
}

Tensor& set_storage(Tensor& self, c10::Storage storage, int64_t offset, Sizes sizes, Sizes strides) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides, offset);
  return self;
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor& set_whole_storage(Tensor& self, c10::Storage storage) {
  const auto entries = static_cast<int64_t>(storage.nbytes() / self.element_size());
  return set_storage(self, std::move(storage), 0, Sizes({entries}), Sizes({int64_t{1}}));
}

// The same values as a tensor of the processor, without a copy.
Tensor hosted(const Tensor& tensor) {
  if (!tensor.defined() || tensor.device().type() != SIMULATED) return tensor;
  const auto entries = static_cast<int64_t>(tensor.storage().nbytes() / tensor.element_size());
  const auto whole = at::from_blob(tensor.storage().mutable_data(), {entries}, [tensor](void*) {},
                                   at::TensorOptions().dtype(tensor.dtype()).device(at::kCPU));
  at::AutoDispatchBelowADInplaceOrView below;
  auto result = at::cpu::as_strided(whole, tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) result._set_conj(true);
  if (tensor.is_neg()) result._set_neg(true);
  return result;
}

Tensor placed(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  auto result = empty_strided(tensor.sizes(), tensor.strides(), tensor.scalar_type(), {}, {}, {});
  hosted(result).copy_(tensor);
  return result;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  c10::impl::ExcludeDispatchKeyGuard plain(c10::autograd_dispatch_keyset);
  hosted(to).copy_(hosted(self));
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  if (to.sizes() != self.sizes()) to.resize_(self.sizes());
  return copy_from(self, to, false);
}

// -- operations --------------------------------------------------------------------------------------------------------

void refuse_mixture(bool mixed, const std::string& operation) {
  TORCH_CHECK(!mixed, "Expected all tensors to be on the same device, but found at least two devices, simulated:0 and ",
              "cpu! (", operation, ")");
}

void refuse_other(const Tensor& input, const std::optional<Tensor>& other, const std::string& operation) {
  refuse_mixture(other && other->defined() && other->device() != input.device(), operation);
}

void on_processor(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const auto name = toString(operation.operator_name());
  bool here = false, elsewhere = false;
  const auto note = [&](const Tensor& tensor) {
    if (!tensor.defined()) return;
    here |= tensor.device().type() == SIMULATED;
    elsewhere |= tensor.device().type() != SIMULATED && tensor.dim() > 0;  // a number on the processor is allowed
  };
  for (const auto& argument : torch::jit::last(stack, operation.schema().arguments().size())) {
    if (argument.isTensor()) note(argument.toTensor());
    if (argument.isTensorList())
      for (const Tensor tensor : argument.toTensorList()) note(tensor);
    // Indices, the only lists of this type, may be on the processor.
  }
  refuse_mixture(here && elsewhere, name);
  at::native::cpu_fallback(operation, stack);
}

Tensor convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, SymSizes stride,
                   SymSizes padding, SymSizes dilation, bool transposed, SymSizes output_padding, c10::SymInt groups) {
  for (const auto& other : {std::optional<Tensor>(weight), bias}) refuse_other(input, other, "convolution");
  c10::impl::ExcludeDispatchKeyGuard plain(c10::autograd_dispatch_keyset);
  return placed(at::convolution_symint(hosted(input), hosted(weight), bias ? hosted(*bias) : Tensor(), stride, padding, dilation, transposed,
                                       output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, SymSizes stride, SymSizes padding,
    SymSizes dilation, bool transposed, SymSizes output_padding, c10::SymInt groups, std::array<bool, 3> wanted) {
  for (const auto& other : {weight, gradient}) refuse_other(input, other, "convolution_backward");
  c10::impl::ExcludeDispatchKeyGuard plain(c10::autograd_dispatch_keyset);
  const std::vector<c10::SymInt> biases{transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  const auto [first, second, third] = at::convolution_backward_symint(
      hosted(gradient), hosted(input), hosted(weight), at::OptionalSymIntArrayRef(biases), stride, padding, dilation,
      transposed, output_padding, groups, wanted);
  return {placed(first), placed(second), placed(third)};
}

// Its running statistics are overwritten, which its schema, and so the fallback, does not know.
std::tuple<Tensor, Tensor, Tensor> batch_norm(const Tensor& input, const std::optional<Tensor>& weight,
                                              const std::optional<Tensor>& bias, const std::optional<Tensor>& mean,
                                              const std::optional<Tensor>& variance, bool training, double momentum,
                                              double epsilon) {
  for (const auto& other : {weight, bias, mean, variance}) refuse_other(input, other, "native_batch_norm");
  c10::impl::ExcludeDispatchKeyGuard plain(c10::autograd_dispatch_keyset);
  const auto here = [](const std::optional<Tensor>& tensor) { return tensor ? hosted(*tensor) : Tensor(); };
  const auto [output, first, second] = at::native_batch_norm(hosted(input), here(weight), here(bias), here(mean),
                                                             here(variance), training, momentum, epsilon);
  return {placed(output), placed(first), placed(second)};
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_processor>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("resize_", resize);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("set_.source_Tensor", set_tensor);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", [](const Tensor& self) { return at::cpu::_local_scalar_dense(hosted(self)); });
  library.impl("view", [](const Tensor& self, Sizes sizes) { return at::native::view(self, sizes); });
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("as_strided", [](const Tensor& self, Sizes sizes, Sizes strides, std::optional<int64_t> offset) {
    return at::native::as_strided_tensorimpl(self, sizes, strides, offset);
  });
  library.impl("unfold", at::native::unfold);
  library.impl("view_as_real", at::native::view_as_real);
  library.impl("view_as_complex", at::native::view_as_complex);
  library.impl("native_batch_norm", batch_norm);
  library.impl("convolution_overrideable", convolution);
  library.impl("convolution_backward_overrideable", convolution_backward);
}

TORCH_LIBRARY_IMPL(aten, Conjugate, library) { library.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, library) { library.impl("_copy_from", torch::CppFunction::makeFallthrough()); }

const bool installed = (at::RegisterPrivateUse1HooksInterface(new Hooks()), true);

}  // namespace
