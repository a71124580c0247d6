// SPDX-License-Identifier: Apache-2.0
import com.sun.jna.Library;
import java.nio.Buffer;
import java.nio.DoubleBuffer;

/** The functions of batchnorm.h. */
interface Functions extends Library {
    int bn_forward_training(Structs.Shape shape, int dtype, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
        Buffer runningVar, Buffer y, DoubleBuffer mean, DoubleBuffer invstd, Structs.Options options);

    int bn_forward_inference(Structs.Shape shape, int dtype, Buffer x, Buffer gamma, Buffer beta, Buffer runningMean,
        Buffer runningVar, Buffer y, DoubleBuffer mean, DoubleBuffer invstd, Structs.Options options);

    int bn_backward(Structs.Shape shape, int dtype, Buffer dy, Buffer x, Buffer gamma, Buffer beta,
        DoubleBuffer mean, DoubleBuffer invstd, Buffer dx, Buffer dgamma, Buffer dbeta, Structs.Options options);

    int bn_moments(Structs.Shape shape, int dtype, Buffer x, DoubleBuffer count, DoubleBuffer mean, DoubleBuffer m2,
        long stride, Structs.Options options);

    int bn_version();

    String bn_last_error();

    int bn_set_num_threads(int threads);

    int bn_shape_from_strides(long rank, long[] sizes, long channelAxis, long channelAxes, long tensors, long[] strides,
        int samplesOutermost, Structs.Shape shape, long[] outerStrides);
}
