// Package schedule decides who fetches what from whom: the hand-out of who has everything, the choice of pieces and
// links of who lacks some. It is pure: no sockets, no clock, no disk, and the same calls with the same random source
// give the same answers, so that the engine and a simulator run the same code. Nothing here is safe for concurrent use.
package schedule
