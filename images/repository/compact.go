package repository

import "context"

// CompactReport says what compaction did.
type CompactReport struct {
	Written int64 // bytes of records in new packs
}

func (p *pruning) compact(context.Context) error { return nil }
