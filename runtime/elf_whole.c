/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/elf_whole.h"

#if !defined(__ELF__)

mest_status mest_elf_whole(const char *path, mest_error *err)
{
    (void)path, (void)err;
    return MEST_OK;
}

#else

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h> /* ElfW: the structures of this process's class */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Processors that the library is built for; of others the loader judges. */
#if defined(__x86_64__)
enum { MACHINE = EM_X86_64 };
#elif defined(__i386__)
enum { MACHINE = EM_386 };
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64 };
#elif defined(__arm__)
enum { MACHINE = EM_ARM };
#else
enum { MACHINE = EM_NONE };
#endif

static const unsigned char own_class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
static const unsigned char own_order = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;

/* False: the file ends before, or cannot be read. */
static bool read_at(int fd, uint64_t at, void *to, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

/* Do n items of `each` bytes from `at` lie in a file of `size` bytes? */
static bool lies_in(uint64_t size, uint64_t at, uint64_t n, uint64_t each) { return at <= size && (each == 0 || n <= (size - at) / each); }

/* What is wrong with the file; NULL: nothing. */
static const char *look(int fd)
{
    static const char cut[] = "the file ends before its headers say: it was cut short";
    struct stat st;
    ElfW(Ehdr) head;
    if (fstat(fd, &st) != 0)
        return strerror(errno);
    if (!S_ISREG(st.st_mode))
        return "not a regular file";
    const uint64_t size = (uint64_t)st.st_size;
    unsigned char magic[SELFMAG];
    if (!read_at(fd, 0, magic, sizeof magic) || memcmp(magic, ELFMAG, SELFMAG) != 0)
        return "not a shared object (no ELF file)";
    if (!read_at(fd, 0, &head, sizeof head))
        return cut;
    if (head.e_ident[EI_CLASS] != own_class || head.e_ident[EI_DATA] != own_order || (MACHINE != EM_NONE && head.e_machine != MACHINE))
        return "a shared object for another processor";
    if (head.e_type != ET_DYN)
        return "an ELF file, but not a shared object";
    if (head.e_phentsize != sizeof(ElfW(Phdr)) || head.e_phnum == 0)
        return "a damaged ELF file";
    if (!lies_in(size, head.e_phoff, head.e_phnum, sizeof(ElfW(Phdr))))
        return cut;
    for (uint64_t i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) part;
        if (!read_at(fd, head.e_phoff + i * sizeof part, &part, sizeof part) || (part.p_filesz > 0 && !lies_in(size, part.p_offset, part.p_filesz, 1)))
            return cut;
    }
    /* The loader does not read the table of sections, but it is what a file ends with: without it something was lost. */
    return head.e_shoff == 0 || lies_in(size, head.e_shoff, head.e_shnum, head.e_shentsize) ? NULL : cut;
}

mest_status mest_elf_whole(const char *path, mest_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a named pipe must not make us wait; the loader would, too */
    if (fd < 0)
        return MEST_OK;
    const char *wrong = look(fd);
    close(fd);
    return wrong ? mest_fail(err, MEST_E_PLUGIN, "scheduler '%s' cannot be loaded: %s", path, wrong) : MEST_OK;
}

#endif
