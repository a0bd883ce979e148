namespace Causeway.EndToEnd;

// The usual run: every platform with every cache mode, queue counts alternating; the sandbox is the daemon's usual one but for one
// guest each, and two have packed rings. One class is one guest; the runner takes two classes at a time.

public sealed class Debian12_Never_1(Debian12_Never_1.Fixture fixture)
    : GuestTests(fixture), IClassFixture<Debian12_Never_1.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("debian12", CacheMode.Never, Queues: 1) { KillPriv = false });
}

public sealed class Newer_Never_4(Newer_Never_4.Fixture fixture)
    : PrivilegedGuestTests(fixture), IClassFixture<Newer_Never_4.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("newer", CacheMode.Never, Queues: 4) { Privileges = true });
}

public sealed class Debian12_Auto_4(Debian12_Auto_4.Fixture fixture)
    : PrivilegedGuestTests(fixture), IClassFixture<Debian12_Auto_4.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("debian12", CacheMode.Auto, Queues: 4) { Privileges = true });
}

public sealed class Newer_Auto_1(Newer_Auto_1.Fixture fixture)
    : PrivilegedGuestTests(fixture), IClassFixture<Newer_Auto_1.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("newer", CacheMode.Auto, Queues: 1) { Privileges = true });
}

public sealed class Debian12_Always_1(Debian12_Always_1.Fixture fixture)
    : GuestTests(fixture), IClassFixture<Debian12_Always_1.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("debian12", CacheMode.Always, Queues: 1) { Sandbox = "chroot" });
}

public sealed class Newer_Always_4(Newer_Always_4.Fixture fixture)
    : GuestTests(fixture), IClassFixture<Newer_Always_4.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("newer", CacheMode.Always, Queues: 4) { PackedRings = true });
}

public sealed class Debian12_AlwaysWriteback_4(Debian12_AlwaysWriteback_4.Fixture fixture)
    : GuestTests(fixture), IClassFixture<Debian12_AlwaysWriteback_4.Fixture>
{
    public sealed class Fixture() : GuestFixture(
        new("debian12", CacheMode.AlwaysWriteback, Queues: 4) { PackedRings = true, KillPriv = false });
}

public sealed class Newer_AlwaysWriteback_1(Newer_AlwaysWriteback_1.Fixture fixture)
    : GuestTests(fixture), IClassFixture<Newer_AlwaysWriteback_1.Fixture>
{
    public sealed class Fixture() : GuestFixture(new("newer", CacheMode.AlwaysWriteback, Queues: 1) { Sandbox = "none" });
}
