# SPDX-License-Identifier: Apache-2.0
# From `objdump -d --no-show-raw-insn`: a line `class function` for each function and each class of instruction in it
# that not every x86-64 has. The classes are sse4 (SSE3 to 4.2, popcnt), avx2 (VEX, BMI), avx512 (EVEX) and fma.

BEGIN {
    fma = "^vfn?m(add|sub)"

    # Only an EVEX prefix can say these: 512 bits, masks, registers beyond 15, broadcasts, and names of its own.
    avx512 = "%zmm|%k[0-7]|%[xy]mm(1[6-9]|2[0-9]|3[01])|[{]1to"
    avx512 = avx512 "|^v(extract|insert|broadcast|shuf)[fi](32|64)x[248]|^vmovdq[au](8|16|32|64)"
    avx512 = avx512 "|^valign[dq]|^vperm[ti]2|^vpternlog"

    avx2 = "^v|%ymm|^(andn|bextr|bls(i|r|msk)|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt)[lq]? "

    sse4 = "^(addsubp|hadd|hsub|movddup|movs[hl]dup|lddqu)"
    sse4 = sse4 "|^(pshufb|palignr|phadd|phsub|pabs[bdw]|psign|pmaddubsw|pmulhrsw)"
    sse4 = sse4 "|^(p?blend|dpp[sd]|extractps|insertps|mpsadbw|packusdw|ptest|round[ps][sd]|movntdqa|phminposuw)"
    sse4 = sse4 "|^(pextr[bdq]|pinsr[bdq]|pmaxs[bd]|pmaxu[dw]|pmins[bd]|pminu[dw]|pmov[sz]x|pmuldq|pmulld)"
    sse4 = sse4 "|^(pcmp(eqq|gtq|estr|istr)|crc32|popcnt)"
}

/^[0-9a-f]+ <.*>:$/ {
    name = $2
    gsub(/[<>:]/, "", name)
    next
}

/^ *[0-9a-f]+:\t/ {
    sub(/^ *[0-9a-f]+:\t/, "")
    sub(/ *[#<].*/, "") # addresses and their names
    class = $0 ~ fma ? "fma" : $0 ~ avx512 ? "avx512" : $0 ~ avx2 ? "avx2" : $0 ~ sse4 ? "sse4" : ""
    if (class != "" && !((class, name) in seen)) {
        seen[class, name]
        print class, name
    }
}
