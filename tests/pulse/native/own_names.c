/* An object with a function of its own under one of libc's names, with other parameters, preferred to libc's
 * (built with -Wl,-z,lazy and loaded with RTLD_DEEPBIND). */
double send(double a, double b);
double own_send(double a, double b);

__attribute__((visibility("default"))) double send(double a, double b)
{
    return a * b;
}

double own_send(double a, double b)
{
    return send(a, b);
}
