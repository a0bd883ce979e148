// Names, paths, links, symlinks, mkdir, rmdir, unlink.
#include "posix.h"

static char *repeat(char c, int count)
{
    static char texts[4][8192];
    static int next;
    char *text = texts[next++ % 4];
    memset(text, c, count);
    text[count] = 0;
    return text;
}

static void lengths(void)
{
    struct stat found;
    result("length_255", mkdir(repeat('a', 255), 0700));
    result("length_256", mkdir(repeat('a', 256), 0700));
    result("length_256_stat", stat(repeat('a', 256), &found));
    result("length_256_open", open(repeat('b', 256), O_CREAT | O_RDWR, 0600));
    result("length_256_symlink", symlink("x", repeat('c', 256)));
    result("length_256_rename", rename(repeat('a', 255), repeat('d', 256)));
    result("length_256_unlink", unlink(repeat('e', 256)));
    result("length_255_below", mkdir("sub", 0700) + access(repeat('f', 255), F_OK));
    result("path_4095", stat(repeat('/', 4095), &found));
    result("path_4096", stat(repeat('/', 4096), &found));
    char path[4200] = "";
    for (int i = 0; i < 2047; i++)
        strcat(path, "./");
    result("path_of_dots", stat(path, &found));
    result("length_255_rmdir", rmdir(repeat('a', 255)));
    static const char *const strange[] = {" ", "\xff\xfe", "new\nline", "\x01\x7f", "tab\t", "-rf", "\xe2\x82\xac", "...", "a\\b", "%s"};
    for (size_t i = 0; i < sizeof strange / sizeof strange[0]; i++) {
        char name[32];
        snprintf(name, sizeof name, "strange_%zu", i);
        int made = open(strange[i], O_CREAT | O_EXCL | O_RDWR, 0600);
        say(name, "%s %s %s", word(made < 0 ? -1 : 0), word(access(strange[i], F_OK)), word(unlink(strange[i])));
        close(made);
    }
    make("Case", "upper", 0600);
    opened("case_differs", open("case", O_RDONLY));
    int depth = 0, back = open(".", O_RDONLY);
    while (depth < 60 && mkdir("deep", 0700) == 0 && chdir("deep") == 0)
        depth++;
    char buffer[8192];
    say("depth", "%d getcwd %s", depth, getcwd(buffer, sizeof buffer) ? "ok" : error_name(errno));
    opened("depth_create", open("bottom", O_CREAT | O_RDWR, 0600));
    fchdir(back);
}

static void directories_and_files(void)
{
    make("file", "content", 0644);
    make_directory("directory", 0755);
    need("symlink", symlink("directory", "dirlink"));
    need("symlink", symlink("nowhere", "dangling"));
    state("mkdir_links_before", "directory");
    result("mkdir", mkdir("directory/one", 0750));
    result("mkdir_two", mkdir("directory/two", 0750));
    state("mkdir_links_after", "directory");
    state("mkdir_state", "directory/one");
    result("mkdir_existing", mkdir("directory", 0700));
    result("mkdir_on_file", mkdir("file", 0700));
    result("mkdir_on_link", mkdir("dirlink", 0700));
    result("mkdir_on_dangling", mkdir("dangling", 0700));
    result("mkdir_slash", mkdir("slashed/", 0700));
    result("mkdir_dot", mkdir(".", 0700));
    result("mkdir_new_dot", mkdir("another/.", 0700));
    result("mkdir_missing", mkdir("missing/new", 0700));
    result("mkdir_below_file", mkdir("file/new", 0700));
    result("mkdir_mode_bits", mkdir("bits", 07777));
    state("mkdir_mode_bits_state", "bits");
    result("rmdir_full", rmdir("directory"));
    result("rmdir_dot", rmdir("directory/one/."));
    result("rmdir_dotdot", rmdir("directory/one/.."));
    result("rmdir_file", rmdir("file"));
    result("rmdir_missing", rmdir("missing"));
    result("rmdir_link", rmdir("dirlink"));
    result("rmdir_link_slash", rmdir("dirlink/"));
    result("rmdir", rmdir("directory/one"));
    result("rmdir_slash", rmdir("slashed/"));
    state("rmdir_links", "directory");
    result("unlink_directory", unlink("directory"));
    result("unlink_slash", unlink("file/"));
    result("unlink_missing", unlink("missing"));
    result("unlink_below_file", unlink("file/x"));
    result("unlink_dot", unlink("."));
    result("unlinkat_removedir_file", unlinkat(AT_FDCWD, "file", AT_REMOVEDIR));
    result("unlinkat_bad_flag", unlinkat(AT_FDCWD, "file", 0x1));
    result("unlink_dangling", unlink("dangling"));
    state("dotdot_is_parent", "directory/two/..");
    struct stat one, other;
    stat("directory/two/..", &one);
    stat("directory", &other);
    say("dotdot_inode", "%s", one.st_ino == other.st_ino ? "same" : "differs");
    stat(".", &one);
    stat("directory/..", &other);
    say("dotdot_of_top", "%s", one.st_ino == other.st_ino ? "same" : "differs");

    umask(077);
    mkdir("masked", 0777);
    state("umask_mkdir", "masked");
    close(open("maskedfile", O_CREAT | O_RDWR, 0666));
    state("umask_open", "maskedfile");
    mkfifo("maskedfifo", 0666);
    state("umask_mkfifo", "maskedfifo");
    umask(0777);
    mkdir("nothing", 0777);
    state("umask_all", "nothing");
    umask(0);
}

static void hard_links(void)
{
    make("original", "linked", 0644);
    result("link", link("original", "second"));
    state("link_state", "original");
    state("link_state_second", "second");
    struct stat one, other;
    stat("original", &one);
    stat("second", &other);
    say("link_same_inode", "%s", one.st_ino == other.st_ino ? "same" : "differs");
    result("link_existing", link("original", "second"));
    result("link_itself", link("original", "original"));
    result("link_directory", link("directory", "third"));
    result("link_missing", link("missing", "third"));
    result("link_into_missing", link("original", "missing/third"));
    result("link_below_file", link("original", "second/third"));
    result("link_slash", link("original", "third/"));
    need("symlink", symlink("original", "symbolic"));
    result("link_symlink", link("symbolic", "symboliclink"));
    state("link_symlink_state", "symboliclink");
    result("linkat_follow", linkat(AT_FDCWD, "symbolic", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    state("linkat_follow_state", "followed");
    result("linkat_bad_flag", linkat(AT_FDCWD, "original", AT_FDCWD, "fourth", 1));
    need("mkfifo", mkfifo("fifo", 0600));
    result("link_fifo", link("fifo", "fifo2"));
    state("link_fifo_state", "fifo");
    int file = open("second", O_RDWR);
    result("link_unlink", unlink("original"));
    fstate("link_unlink_state", file);
    write(file, "L", 1);
    content("link_written_through_other", "followed");
    unlink("second");
    fstate("link_last_but_one", file);
    unlink("followed");
    fstate("link_none_left", file);
    make("many", "", 0600);
    int made = 0;
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "many%d", i);
        made += link("many", name) == 0;
    }
    say("link_many", "%d", made);
    state("link_many_state", "many");
}

static void symbolic_links(void)
{
    char target[8192], name[32];
    result("symlink_empty", symlink("", "empty"));
    result("symlink_4095", symlink(repeat('t', 4095), "longest"));
    result("symlink_4096", symlink(repeat('t', 4096), "toolong"));
    result("symlink_4095_read", readlink("longest", target, sizeof target));
    state("symlink_4095_state", "longest");
    result("symlink_59", symlink(repeat('t', 59), "l59"));
    result("symlink_60", symlink(repeat('t', 60), "l60"));
    result("symlink_61", symlink(repeat('t', 61), "l61"));
    for (int i = 59; i <= 61; i++) {
        char path[8];
        snprintf(path, sizeof path, "l%d", i);
        snprintf(name, sizeof name, "symlink_%d_read", i);
        result(name, readlink(path, target, sizeof target));
    }
    result("symlink_existing", symlink("x", "longest"));
    result("symlink_slash", symlink("x", "slash/"));
    result("symlink_missing_parent", symlink("x", "missing/x"));
    result("symlink_bytes", symlink("\xff\xfe\n", "bytes"));
    memset(target, 0, 8);
    readlink("bytes", target, sizeof target);
    say("symlink_bytes_read", "%s", strcmp(target, "\xff\xfe\n") ? "differs" : "same");
    result("readlink_short", readlink("longest", target, 10));
    result("readlink_zero", syscall(SYS_readlink, "longest", target, 0));
    result("readlink_file", readlink("Case", target, sizeof target));
    result("readlink_missing", readlink("missing", target, sizeof target));
    result("symlink_chmod", chmod("dirlink", 0700));
    result("symlink_lchmod", fchmodat(AT_FDCWD, "dirlink", 0700, AT_SYMLINK_NOFOLLOW));
    result("symlink_lchown", lchown("bytes", 5, 6));
    state("symlink_lchown_state", "bytes");
    result("symlink_truncate_dangling", truncate("bytes", 0));
    need("chain", symlink("Case", "chain0"));
    for (int i = 1; i <= 41; i++) {
        char from[16], to[16];
        snprintf(from, sizeof from, "chain%d", i);
        snprintf(to, sizeof to, "chain%d", i - 1);
        need("chain", symlink(to, from));
    }
    struct stat found;
    result("symlink_chain_40", stat("chain39", &found));
    result("symlink_chain_41", stat("chain40", &found));
    result("symlink_through_directory", symlink("../Case", "directory/up"));
    content("symlink_relative", "directory/up");
    make_directory("moved", 0700);
    need("rename", rename("directory/up", "moved/up"));
    content("symlink_relative_moved", "moved/up");
    result("symlink_to_itself_stat", symlink("self", "self") + stat("self", &found));
    result("symlink_loop_in_the_middle", stat("self/x", &found));
    result("file_in_the_middle", stat("Case/x", &found));
    result("file_in_the_middle_dot", stat("Case/.", &found));
    result("chdir_file", chdir("Case"));
    result("chdir_missing", chdir("missing"));
    result("statfs_namelen", ({ struct statvfs fs; statvfs(".", &fs) ? -1 : (long)fs.f_namemax; }));
    result("pathconf_links", pathconf(".", _PC_PATH_MAX));
}

void names(void)
{
    lengths();
    directories_and_files();
    hard_links();
    symbolic_links();
}
