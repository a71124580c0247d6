// SPDX-License-Identifier: Apache-2.0
/** Arrays that have a row for each group; PARAMETERS are gamma, beta and their gradients. */
public enum PerGroup { STATISTICS, RUNNING, PARAMETERS }
