cat >Makefile <<'END'
PARTS = $(addsuffix .part,1 2 3 4 5 6 7 8)
all: $(PARTS)
	@cat $(PARTS) | awk '{ sum += $$1 } END { print "sum: " sum }'
%.part:
	@echo $* >$@
END
make -j4
