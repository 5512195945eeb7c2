package repository

import "context"

// Requests counts the pieces that hold data and the requests to the bucket that reading each of them by itself takes; an
// image that needs more than 4 a piece is brought together by a prune. It reads the indexes of the packs.
func (x *Reader) Requests(ctx context.Context) (pieces, requests int64, err error) {
	x = x.now()
	for piece := range x.shape.Count() {
		ranks := make([]int64, x.shape.Data(piece).Len())
		if len(ranks) == 0 {
			continue
		}
		for i := range ranks {
			ranks[i] = x.before[piece] + int64(i)
		}
		wanted, _, err := x.locate(ctx, x.parts[x.shape.Span(piece).Partition].placement, ranks)
		if err != nil {
			return 0, 0, err
		}
		pieces, requests = pieces+1, requests+int64(len(partsOf(wanted)))
	}
	return pieces, requests, nil
}
