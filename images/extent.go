package images

import "fmt"

// Extent is the half-open byte range [Offset, Offset+Length).
type Extent struct {
	Offset int64 `cbor:"1,keyasint" json:"offset"`
	Length int64 `cbor:"2,keyasint" json:"length"`
}

// End is the first byte after the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// Intersect returns the bytes that both extents hold; its Length is 0 when there are none.
func (e Extent) Intersect(o Extent) Extent {
	start, end := max(e.Offset, o.Offset), min(e.End(), o.End())
	if end <= start {
		return Extent{}
	}
	return Extent{start, end - start}
}

func (e Extent) String() string { return fmt.Sprintf("[%d, %d)", e.Offset, e.End()) }

// AppendExtent adds e to a sorted list, joining it with the last extent where they touch or overlap. Empty extents are
// left out. The caller adds in ascending order of Offset.
func AppendExtent(list []Extent, e Extent) []Extent {
	if e.Length <= 0 {
		return list
	}
	if k := len(list); k > 0 && list[k-1].End() >= e.Offset {
		if e.End() > list[k-1].End() {
			list[k-1].Length = e.End() - list[k-1].Offset
		}
		return list
	}
	return append(list, e)
}

// TotalLength returns the sum of the lengths.
func TotalLength(list []Extent) (n int64) {
	for _, e := range list {
		n += e.Length
	}
	return n
}
