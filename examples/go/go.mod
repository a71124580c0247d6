// SPDX-License-Identifier: Apache-2.0
module batchnorm

go 1.19
