//go:build !purego

#include "textflag.h"

// SHA-256 (FIPS 180-4 §6.2.2) of two messages at once by the SHA extensions of x86. One message keeps a core waiting for the
// latency of each pair of rounds; the other one's rounds fit into that time.
//
// A state lies as the instructions want it, words from the low one up: F E B A, H G D C.
//
//	X0          the words of four rounds with their constants: SHA256RNDS2 takes them from there
//	X1  X2      state of the first message; X3-X6 its words
//	X7  X8      state of the second message; X9-X12 its words
//	X13         for short
//	X14         turns words from big-endian

// LOAD reads the words of a block.
#define LOAD(p, m0, m1, m2, m3) \
	MOVOU  0(p), m0;  \
	MOVOU  16(p), m1; \
	MOVOU  32(p), m2; \
	MOVOU  48(p), m3; \
	PSHUFB X14, m0;   \
	PSHUFB X14, m1;   \
	PSHUFB X14, m2;   \
	PSHUFB X14, m3

// LAST is rounds r to r+3, with words w.
#define LAST(r, s0, s1, w) \
	MOVOU       (4*(r))(AX), X0; \
	PADDL       w, X0;         \
	SHA256RNDS2 X0, s0, s1;    \
	PSHUFD      $0x0e, X0, X0; \
	SHA256RNDS2 X0, s1, s0

// FOUR is rounds r to r+3, and makes of their words w those of four groups later; u, v, x are the words of the groups between.
#define FOUR(r, s0, s1, w, u, v, x) \
	MOVOU       (4*(r))(AX), X0; \
	PADDL       w, X0;         \
	SHA256RNDS2 X0, s0, s1;    \
	MOVO        x, X13;        \
	PALIGNR     $4, v, X13;    \
	SHA256MSG1  u, w;          \
	PADDL       X13, w;        \
	SHA256MSG2  x, w;          \
	PSHUFD      $0x0e, X0, X0; \
	SHA256RNDS2 X0, s1, s0

#define BOTH(r, a0, a1, a2, a3, b0, b1, b2, b3) \
	FOUR(r, X1, X2, a0, a1, a2, a3); \
	FOUR(r, X7, X8, b0, b1, b2, b3)

// SIXTEEN is rounds r to r+15 of both messages.
#define SIXTEEN(r) \
	BOTH(r, X3, X4, X5, X6, X9, X10, X11, X12);    \
	BOTH(r+4, X4, X5, X6, X3, X10, X11, X12, X9);  \
	BOTH(r+8, X5, X6, X3, X4, X11, X12, X9, X10);  \
	BOTH(r+12, X6, X3, X4, X5, X12, X9, X10, X11)

#define LASTOFBOTH(r, a, b) \
	LAST(r, X1, X2, a); \
	LAST(r, X7, X8, b)

// func twoBlocks(a, b *[8]uint32, p, q *byte, n int)
TEXT ·twoBlocks(SB), NOSPLIT, $64-40
	MOVQ  a+0(FP), R8
	MOVQ  b+8(FP), R9
	MOVQ  p+16(FP), SI
	MOVQ  q+24(FP), DI
	MOVQ  n+32(FP), CX
	LEAQ  ·rounds(SB), AX
	MOVOU ·bigEndian(SB), X14
	MOVOU 0(R8), X1
	MOVOU 16(R8), X2
	MOVOU 0(R9), X7
	MOVOU 16(R9), X8

next:
	TESTQ CX, CX
	JZ    done
	MOVOU X1, state-64(SP)
	MOVOU X2, state-48(SP)
	MOVOU X7, state-32(SP)
	MOVOU X8, state-16(SP)
	LOAD(SI, X3, X4, X5, X6)
	LOAD(DI, X9, X10, X11, X12)
	SIXTEEN(0)
	SIXTEEN(16)
	SIXTEEN(32)
	LASTOFBOTH(48, X3, X9)
	LASTOFBOTH(52, X4, X10)
	LASTOFBOTH(56, X5, X11)
	LASTOFBOTH(60, X6, X12)
	MOVOU state-64(SP), X13
	PADDL X13, X1
	MOVOU state-48(SP), X13
	PADDL X13, X2
	MOVOU state-32(SP), X13
	PADDL X13, X7
	MOVOU state-16(SP), X13
	PADDL X13, X8
	ADDQ  $64, SI
	ADDQ  $64, DI
	DECQ  CX
	JMP   next

done:
	MOVOU X1, 0(R8)
	MOVOU X2, 16(R8)
	MOVOU X7, 0(R9)
	MOVOU X8, 16(R9)
	RET
